"""Further rows in which words are replaced by what a masked language model puts there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distil_nlp.data.fingerprint import hash_json, hash_model, hash_rows, hash_tokenizer
from distil_nlp.data.masking import word_positions
from distil_nlp.data.row_sets import row_generator
from distil_nlp.errors import UserError
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

REPLACEMENT_VERSION = 1
"""Of the way in which rows are made; another one makes other files."""
_MASKED_AT_ONCE = 0.15
_ROWS_AT_ONCE, _ROWS_OF_A_FILE = 64, 4096
_SALT = 4
_SPACES = ("Ġ", "▁")
"""How byte-level and sentence-piece vocabularies write the space that a word begins with."""


@dataclass(frozen=True)
class WordReplacement:
    """How rows are multiplied: Algorithm 1 of TinyBERT (Jiao et al. 2020, arXiv:1909.10351), which has 20, 0.4 and 15.

    The paper masks one word at a time, and replaces words of several pieces by neighbours in GloVe. Here all of a word
    is one [MASK], and up to 15 % of a row's words are masked at once, as the model learnt to fill them in: a seventh of
    the forwards. The authors' code does two things that the paper does not say, and that are not done here: it leaves
    stop words and all that is not made of letters alone, and shows the model the whole text behind the masked one.

    Attributes:
        copies: further rows for each row.
        probability: with which each word of a copy is replaced.
        candidates: of how many likeliest words the new one is drawn, evenly; the old one may be among them.
        folder: where the rows are kept, a folder for each model, data and settings.
    """

    copies: int = 20
    probability: float = 0.4
    candidates: int = 15
    seed: int = 0
    folder: str | Path = "runs/augmented"


def augment_with_replacements(
    rows: Dataset,
    how: WordReplacement,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str = "rows",
    batch_size: int = 32,
) -> Dataset:
    """Each row, and behind it its copies, which have no label; read from disk if they were made before. They are made
    file by file, so that what was interrupted goes on behind the last whole one.

    Args:
        rows: of a task, tokenised, with `word_ids`; of a pair both texts are changed. That column is gone afterwards.
        model: a masked language model on the device that it is to run on, of the tokenizer's vocabulary.
        name: what the folder's name begins with.

    Raises:
        UserError: if the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            "data.augmentation.replacement",
            "a tokenizer with a mask token",
            f"{type(tokenizer).__name__} without one",
            why="no word could be proposed",
            fix="name a masked language model as the teacher, or leave it out",
        )
    key = _key(rows, how, model, tokenizer)
    folder = Path(how.folder) / f"{name}-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    copier = _Copier(how, model, tokenizer, batch_size)
    starts = range(0, len(rows), _ROWS_OF_A_FILE)
    made = datasets.concatenate_datasets(
        [
            rows.select(range(start, min(start + _ROWS_OF_A_FILE, len(rows)))).map(
                copier,
                batched=True,
                batch_size=_ROWS_AT_ONCE,
                remove_columns=rows.column_names,
                features=datasets.Features({n: one for n, one in rows.features.items() if n != "word_ids"}),
                cache_file_name=str(folder / f"{number:05}.arrow"),
                new_fingerprint=f"{key}-{number}",
                load_from_cache_file=True,
                desc=f"replacing words, {number + 1} of {len(starts)}",
            )
            for number, start in enumerate(starts)
        ]
    )
    logger.info(f"replacement: {len(rows):,} training rows became {len(made):,}, kept in {folder}")
    return made


def _key(rows: Dataset, how: WordReplacement, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """A short name of all that the copies depend on."""
    settings = {name: value for name, value in asdict(how).items() if name != "folder"}
    of_rows = hash_rows(rows, sorted(rows.column_names))
    told = [REPLACEMENT_VERSION, settings, of_rows, hash_model(model), hash_tokenizer(tokenizer)]
    return hash_json(told)[:16]


Row = dict[str, np.ndarray]
"""The columns of one row that have a value for each token."""


class _Copier:
    """Rows → rows and their copies, column by column, as `Dataset.map` wants them."""

    def __init__(
        self, how: WordReplacement, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ):
        self.how, self.model, self.tokenizer, self.batch_size = how, model, tokenizer, batch_size
        self.vocabulary = _CandidateVocabulary(tokenizer)

    def __call__(self, columns: dict[str, list]) -> dict[str, list]:
        rows = [
            {name: np.asarray(columns[name][i]) for name in self.tokenizer.model_input_names}
            for i in range(len(columns["input_ids"]))
        ]
        words = [self.words(row, places) for row, places in zip(rows, columns["word_ids"], strict=True)]
        proposals = self.proposals(rows, words)
        made: dict[str, list] = {name: [] for name in columns if name != "word_ids"}
        unlabelled = float("nan") if isinstance(columns["labels"][0], float) else -100
        for row, label, places, proposed in zip(rows, columns["labels"], words, proposals, strict=True):
            for number, one in enumerate([row, *self.copies(row, places, proposed)]):
                more = {"length": len(one["input_ids"]), "labels": unlabelled if number else label}
                for name, values in made.items():
                    values.append((one | more)[name])
        return made

    def words(self, row: Row, numbers: Sequence[int]) -> list[np.ndarray]:
        """The places of each word; special tokens are none."""
        ordinary = np.flatnonzero(~np.isin(row["input_ids"], self.tokenizer.all_special_ids))
        return word_positions(ordinary, numbers) if len(ordinary) else []

    def copies(self, row: Row, words: list[np.ndarray], proposed: list[np.ndarray]) -> Iterator[Row]:
        """A word for which nothing is proposed stays."""
        generator = row_generator(self.how.seed, 0, row["input_ids"], _SALT)
        for _ in range(self.how.copies):
            drawn = generator.random(len(words)) < self.how.probability
            chosen = [i for i in np.flatnonzero(drawn) if len(proposed[i])]
            yield replace_words(row, [words[i] for i in chosen], [generator.choice(proposed[i]) for i in chosen])

    def proposals(self, rows: list[Row], words: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
        """For each word of each row the ids of the likeliest words at its place, the likeliest first."""
        asked = [(i, group) for i, places in enumerate(words) for group in mask_groups(len(places))]
        asked.sort(key=lambda one: len(rows[one[0]]["input_ids"]))  # so that little is padded
        found = [[np.empty(0, np.int64)] * len(places) for places in words]
        recorder = Recorder(self.model, SignalRequest(logits=True), head_rows=True)
        for start in range(0, len(asked), self.batch_size):
            part = asked[start : start + self.batch_size]
            masked = [self.masked(rows[i], [words[i][place] for place in group]) for i, group in part]
            firsts = [rows[i]["input_ids"][words[i][place][0]] for i, group in part for place in group]
            places = [(i, place) for i, group in part for place in group]
            likely = self.vocabulary.likeliest(self.logits(masked), firsts, self.how.candidates)
            for (i, place), ids in zip(places, likely, strict=True):
                found[i][place] = ids
        recorder.remove()
        return found

    def masked(self, row: Row, words: list[np.ndarray]) -> tuple[Row, np.ndarray]:
        """A row with each of these words as one [MASK], and where those are."""
        gone = np.sort(np.concatenate([word[1:] for word in words]))
        places = np.array([word[0] - np.searchsorted(gone, word[0]) for word in words])
        return replace_words(row, words, [self.tokenizer.mask_token_id] * len(words)), places

    @torch.no_grad()
    def logits(self, masked: list[tuple[Row, np.ndarray]]) -> Tensor:
        """(masked words, vocabulary), in the order of rows and of words in each."""
        batch = self.tokenizer.pad([{k: v.tolist() for k, v in row.items()} for row, _ in masked], return_tensors="pt")
        length = batch["input_ids"].shape[1]
        rows = torch.from_numpy(np.concatenate([i * length + places for i, (_, places) in enumerate(masked)]))
        device = self.model.device
        return forward_with_signals(self.model, batch.to(device), {"head": rows.to(device)}).logits


def mask_groups(count: int) -> list[range]:
    """Words of a row, by number, that are masked at once: far from each other, and 15 % of all or one."""
    apart = -(-count // max(1, int(_MASKED_AT_ONCE * count))) if count else 0
    return [range(start, count, apart) for start in range(apart)]


def replace_words(row: Row, words: Sequence[np.ndarray], tokens: Sequence[int]) -> Row:
    """A row in which each of these words, given by its places, is one token: the row is shorter for every further piece
    that a word had."""
    changed = {name: value.copy() for name, value in row.items()}
    for word, token in zip(words, tokens, strict=True):
        changed["input_ids"][word[0]] = token
    gone = [place for word in words for place in word[1:]]
    return {name: np.delete(value, gone) for name, value in changed.items()}


class _CandidateVocabulary:
    """What of a vocabulary can stand for a word: no special token, and no piece that goes on with one (`##…`).

    Where a vocabulary marks the space before a word instead, a word with one is replaced by such with one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        tokens = [str(token) for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
        marks_spaces = any(token.startswith(_SPACES) for token in tokens)
        begins = [token.startswith(_SPACES) if marks_spaces else not token.startswith("##") for token in tokens]
        self.begins = torch.tensor(begins)
        self.special = torch.zeros(len(tokens), dtype=torch.bool)
        self.special[tokenizer.all_special_ids] = True

    def likeliest(self, logits: Tensor, firsts: Sequence[int], count: int) -> list[np.ndarray]:
        """For each row of logits, (rows, vocabulary), at most `count` ids that may replace a word beginning with that
        token, the likeliest first."""
        alike = self.begins == self.begins[torch.tensor(firsts)][:, None]
        allowed = (alike & ~self.special).to(logits.device)
        scores = logits[:, : len(self.special)].masked_fill(~allowed, -torch.inf)
        values, ids = scores.topk(min(count, scores.shape[1]))
        return [row[some].numpy() for row, some in zip(ids.cpu(), values.isfinite().cpu(), strict=True)]
