"""Copies of training rows in which words are replaced by the predictions of a masked language model."""

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
from distil_nlp.models import count_ids
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from distil_nlp.utils.locks import claimed
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.names import path_name

logger = get_logger(__name__)

REPLACEMENT_VERSION = 1
"""Version of the augmentation, part of a folder's name: increase it when the copies change."""
_MASKED_AT_ONCE = 0.15
_ROWS_AT_ONCE, _ROWS_OF_A_FILE = 64, 4096
_SALT = 4
_SPACES = ("Ġ", "▁")
"""The space before a word, as byte-level and SentencePiece vocabularies write it."""


@dataclass(frozen=True)
class WordReplacement:
    """Settings of the augmentation by Algorithm 1 of TinyBERT (Jiao et al. 2020, arXiv:1909.10351): 20, 0.4 and 15.

    The authors' code makes 30 copies of CoLA, MRPC, STS-B and RTE, 20 of SST-2 and QNLI, and 10 of MNLI and QQP. Of a
    pair it changes one text at a time, and it drops duplicates.

    The paper masks one word at a time, and replaces words of several pieces by neighbours in GloVe. Here a whole word
    is replaced by a single [MASK], and up to 15 % of a row's words are masked at once, as in the model's pretraining:
    this takes a seventh of the forwards. The authors' code does two things that the paper does not mention, and that
    are not done here: it never replaces stop words or tokens that are not letters, and it appends the unmasked text to
    the masked one.

    Attributes:
        copies: number of augmented copies of each row.
        probability: probability that a word of a copy is replaced.
        candidates: number of likeliest words that the replacement is drawn from, uniformly; the original word may be
            among them.
        folder: where the rows are stored, in a folder for each model, data and settings.
    """

    copies: int = 20
    probability: float = 0.4
    candidates: int = 15
    seed: int = 0
    folder: str | Path = "runs/augmented"


def augment_with_replacements(
    rows: Dataset,
    config: WordReplacement,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    name: str = "rows",
    batch_size: int = 32,
) -> Dataset:
    """Return each row followed by its copies, which have no label; read from disk if they exist already.

    The copies are computed file by file, so that an interrupted augmentation continues after the last complete file.

    Args:
        rows: tokenised rows of a task, with `word_ids`, a column that the result does not have. Words of both texts of
            a pair are replaced.
        config: number of copies, and how words are replaced.
        model: a masked language model with the tokenizer's vocabulary, on its device.
        name: prefix of the folder's name.

    Raises:
        UserError: if the tokenizer has no mask token.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(
            "data.augmentation.replacement",
            "a tokenizer with a mask token",
            f"{type(tokenizer).__name__} without one",
            why="no word could be proposed",
            fix="name a masked language model as the teacher, or leave replacement out",
        )
    key = _key(rows, config, model, tokenizer)
    folder = rows_folder(config, name, key)
    copier = _Copier(config, model, tokenizer, batch_size)
    with claimed(folder, wait_for="the rows with replaced words"):
        made = _copies(rows, copier, folder, key)
    logger.info(f"replacement: {len(rows):,} training rows became {len(made):,}, kept in {folder}")
    return made


def _copies(rows: Dataset, copier: _Copier, folder: Path, key: str) -> Dataset:
    """Return the rows and their copies, file by file: from the folder, or written into it."""
    starts = range(0, len(rows), _ROWS_OF_A_FILE)
    return datasets.concatenate_datasets(
        [
            rows.select(range(start, min(start + _ROWS_OF_A_FILE, len(rows)))).map(
                copier,
                batched=True,
                batch_size=_ROWS_AT_ONCE,
                remove_columns=rows.column_names,
                features=datasets.Features({n: f for n, f in rows.features.items() if n != "word_ids"}),
                cache_file_name=str(folder / f"{number:05}.arrow"),
                new_fingerprint=f"{key}-{number}",
                load_from_cache_file=True,
                desc=f"replacing words, {number + 1} of {len(starts)}",
            )
            for number, start in enumerate(starts)
        ]
    )


def rows_folder(config: WordReplacement, name: str, key: str) -> Path:
    """Return the folder of the copies with this key."""
    return Path(config.folder) / f"{path_name(name)}-{key}"


def _key(rows: Dataset, config: WordReplacement, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a short hash of everything that the copies depend on."""
    settings = {name: value for name, value in asdict(config).items() if name != "folder"}
    rows_hash = hash_rows(rows, sorted(rows.column_names))
    return hash_json([REPLACEMENT_VERSION, settings, rows_hash, hash_model(model), hash_tokenizer(tokenizer)])[:16]


Row = dict[str, np.ndarray]
"""The columns of a row that have a value for each token."""


class _Copier:
    """Maps columns of rows to columns of rows and their copies, as a function for `Dataset.map`."""

    def __init__(
        self, config: WordReplacement, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int
    ):
        self.config, self.model, self.tokenizer, self.batch_size = config, model, tokenizer, batch_size
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
            for number, version in enumerate([row, *self.copies(row, places, proposed)]):
                added = {"length": len(version["input_ids"]), "labels": unlabelled if number else label}
                for name, values in made.items():
                    values.append((version | added)[name])
        return made

    def words(self, row: Row, numbers: Sequence[int]) -> list[np.ndarray]:
        """Return the positions of each word's tokens; special tokens are not words."""
        ordinary = np.flatnonzero(~np.isin(row["input_ids"], self.tokenizer.all_special_ids))
        return word_positions(ordinary, numbers) if len(ordinary) else []

    def copies(self, row: Row, words: list[np.ndarray], proposed: list[np.ndarray]) -> Iterator[Row]:
        """Yield the copies of a row; a word without proposals is never replaced."""
        generator = row_generator(self.config.seed, 0, row["input_ids"], _SALT)
        for _ in range(self.config.copies):
            drawn = generator.random(len(words)) < self.config.probability
            chosen = [i for i in np.flatnonzero(drawn) if len(proposed[i])]
            yield replace_words(row, [words[i] for i in chosen], [generator.choice(proposed[i]) for i in chosen])

    def proposals(self, rows: list[Row], words: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
        """Return, for each word of each row, the ids of the likeliest words at its position, likeliest first."""
        groups = [(i, group) for i, places in enumerate(words) for group in mask_groups(len(places))]
        groups.sort(key=lambda item: len(rows[item[0]]["input_ids"]))  # so that little is padded
        proposals = [[np.empty(0, np.int64)] * len(places) for places in words]
        recorder = Recorder(self.model, SignalRequest(logits=True), head_rows=True)
        for start in range(0, len(groups), self.batch_size):
            part = groups[start : start + self.batch_size]
            masked = [self.masked(rows[i], [words[i][place] for place in group]) for i, group in part]
            firsts = [rows[i]["input_ids"][words[i][place][0]] for i, group in part for place in group]
            places = [(i, place) for i, group in part for place in group]
            likely = self.vocabulary.likeliest(self.logits(masked), firsts, self.config.candidates)
            for (i, place), ids in zip(places, likely, strict=True):
                proposals[i][place] = ids
        recorder.remove()
        return proposals

    def masked(self, row: Row, words: list[np.ndarray]) -> tuple[Row, np.ndarray]:
        """Return the row with each of these words replaced by one [MASK], and the positions of the masks."""
        removed = np.sort(np.concatenate([word[1:] for word in words]))
        places = np.array([word[0] - np.searchsorted(removed, word[0]) for word in words])
        return replace_words(row, words, [self.tokenizer.mask_token_id] * len(words)), places

    @torch.no_grad()
    def logits(self, masked: list[tuple[Row, np.ndarray]]) -> Tensor:
        """Return logits of shape (masked words, vocabulary), in the order of the rows and of the words in each row."""
        batch = self.tokenizer.pad([{k: v.tolist() for k, v in row.items()} for row, _ in masked], return_tensors="pt")
        length = batch["input_ids"].shape[1]
        rows = torch.from_numpy(np.concatenate([i * length + places for i, (_, places) in enumerate(masked)]))
        device = self.model.device
        return forward_with_signals(self.model, batch.to(device), {"head": rows.to(device)}).logits


def mask_groups(count: int) -> list[range]:
    """Return groups of word numbers to be masked together: evenly spaced, at most 15 % of a row's words (or one)."""
    apart = -(-count // max(1, int(_MASKED_AT_ONCE * count))) if count else 0
    return [range(start, count, apart) for start in range(apart)]


def replace_words(row: Row, words: Sequence[np.ndarray], tokens: Sequence[int]) -> Row:
    """Return the row with each of these words, given by the positions of its pieces, replaced by a single token.

    The row gets shorter by every further piece of a replaced word.
    """
    changed = {name: value.copy() for name, value in row.items()}
    for word, token in zip(words, tokens, strict=True):
        changed["input_ids"][word[0]] = token
    removed = [place for word in words for place in word[1:]]
    return {name: np.delete(value, removed) for name, value in changed.items()}


class _CandidateVocabulary:
    """The tokens that may replace a word: no special tokens, and no pieces that continue a word (`##…`).

    If the vocabulary marks the space before a word instead, words with a space are replaced by words with a space.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        known = sorted(set(tokenizer.get_vocab().values()))
        tokens = [""] * count_ids(tokenizer)
        for number, token in zip(known, tokenizer.convert_ids_to_tokens(known), strict=True):
            tokens[number] = str(token)
        marks_spaces = any(token.startswith(_SPACES) for token in tokens)
        begins = [token.startswith(_SPACES) if marks_spaces else not token.startswith("##") for token in tokens]
        self.begins = torch.tensor(begins)
        self.special = torch.ones(len(tokens), dtype=torch.bool)  # as are ids without a token
        self.special[known] = False
        self.special[tokenizer.all_special_ids] = True

    def likeliest(self, logits: Tensor, firsts: Sequence[int], count: int) -> list[np.ndarray]:
        """Return, for each row of logits, at most `count` ids that may replace a word, likeliest first.

        Args:
            logits: (rows, vocabulary).
            firsts: the first token of each word.
        """
        alike = self.begins == self.begins[torch.tensor(firsts)][:, None]
        allowed = (alike & ~self.special).to(logits.device)
        scores = logits[:, : len(self.special)].masked_fill(~allowed, -torch.inf)
        values, ids = scores.topk(min(count, scores.shape[1]))
        return [row[finite].numpy() for row, finite in zip(ids.cpu(), values.isfinite().cpu(), strict=True)]
