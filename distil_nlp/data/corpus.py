"""Packing of text into full blocks of tokens, without padding."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
from datasets import Dataset, Features, IterableDataset, List, Value
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.overlap import scored_splits
from distil_nlp.data.shares import keep_share
from distil_nlp.data.splits import Split, is_held_out, limit_rows, named_split, split_off
from distil_nlp.data.tokenization import tokenise, word_ids
from distil_nlp.errors import UserError, listed, quoted, shown

_SELECTION_BLOCKS = 512
Packer = tuple[Callable[..., dict[str, list[Any]]], Features]
"""(documents of a batch, their column, length of a block) → the columns of blocks, and their types."""
_COLUMNS = Features({"input_ids": List(Value("int32")), "word_ids": List(Value("int32"))})


def load_corpus(
    splits: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    text_column: str = "text",
    train_split: str = "train",
    evaluation_splits: list[str] | None = None,
    max_length: int = 128,
    held_out_share: float = 0.02,
    selection_share: float | None = None,
    max_train_rows: int | None = None,
    share: float = 1.0,
    max_evaluation_rows: int | None = None,
    num_proc: int | None = None,
    shuffle_buffer: int = 2000,
    seed: int = 42,
    packer: Packer | None = None,
) -> Split:
    """Return blocks of exactly `max_length` tokens, `[CLS] … [SEP]`, with documents joined by the separator.

    A dataset is tokenised in parallel and cached by `datasets`, a stream is tokenised as it is read. Each row has
    `input_ids` and `word_ids` (the number of the word that a token belongs to; −1 for special tokens).

    Args:
        splits: a `DatasetDict`, or an `IterableDatasetDict` to stream.
        evaluation_splits: splits that perplexity is reported on; by default `validation`, or else a fraction
            `held_out_share` of the documents, chosen by their content.
        selection_share: fraction of the training blocks that is split off, if given.
        max_train_rows, max_evaluation_rows: maximal numbers of blocks.
        share: fraction of the training blocks that is kept.
        shuffle_buffer: number of blocks of a stream that are buffered to draw the next one from, anew each pass.
        packer: packs the documents of a dataset that is no stream in another way.

    Raises:
        UserError: if a split or the column is missing, or no text is left.
    """
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None:
        raise UserError(
            None,
            "a tokenizer with [CLS] and [SEP] tokens",
            f"{type(tokenizer).__name__} without",
            why="blocks cannot be framed as an encoder reads them",
            fix="use an encoder as the teacher",
        )
    train = named_split(splits, train_split)
    names = corpus_evaluation_splits(splits, train_split, evaluation_splits)
    _check_column(train, text_column, train_split)
    if not names:
        evaluation = {"held_out": _filter_held_out(train, text_column, held_out_share, inside=True)}
        train = _filter_held_out(train, text_column, held_out_share, inside=False)
    else:
        evaluation = {name: named_split(splits, name) for name in names}
    packer = packer or (partial(pack, tokenizer=tokenizer), _COLUMNS)
    pack_all = partial(_pack_all, packer=packer, column=text_column, max_length=max_length, num_proc=num_proc)
    blocks = pack_all(train)
    held_out = {n: _materialise(pack_all(rows), max_evaluation_rows, seed, n) for n, rows in evaluation.items()}
    for name, rows in held_out.items():
        _check_words(rows, tokenizer, name)
    if isinstance(blocks, IterableDataset):
        _check_share(share)
        split = _split_stream(blocks, selection_share, max_train_rows, held_out)
        split.train = split.train.shuffle(seed=seed, buffer_size=shuffle_buffer)
        return split
    blocks = limit_rows(_not_empty(blocks, train_split), max_train_rows, seed)
    blocks = keep_share(blocks, share, [None] * len(blocks), seed)
    _check_words(blocks, tokenizer, train_split)
    selection = None
    if selection_share:
        blocks, selection = split_off(blocks, selection_share, seed, "choosing the best checkpoint")
    return Split(blocks, selection, held_out)


def _check_share(share: float) -> None:
    """Raise UserError for a share of a stream, whose length nobody knows."""
    if share < 1:
        raise UserError(
            "data.share",
            "1, for a stream",
            f"{share:g}",
            why="its number of blocks is not known before it is read",
            fix="set data.max_train_rows, or data.streaming=false",
        )


def corpus_evaluation_splits(splits: Any, train_split: str, named: list[str] | None) -> list[str]:
    """Return the splits that perplexity is reported on; none if documents are held out of the training split."""
    names = named or [name for name in ("validation",) if name in splits]
    return scored_splits(splits, names, train_split, are_named=bool(named))


def _split_stream(stream: IterableDataset, selection_share: float | None, limit: int | None, held_out: dict) -> Split:
    """Split a stream; as it has no length to take a fraction of, its first blocks are used for selection."""
    selection = None
    if selection_share:
        selection = _take(stream, _SELECTION_BLOCKS)
        stream = stream.skip(_SELECTION_BLOCKS)
        if next(iter(stream), None) is None:
            raise UserError(
                None,
                f"a stream of more than the {_SELECTION_BLOCKS} blocks split off for choosing the best checkpoint",
                str(len(selection)),
                why="nothing would be left to train on",
                fix="set data.streaming=false",
            )
    return Split(stream.take(limit) if limit else stream, selection, held_out)


def _materialise(blocks: Any, limit: int | None, seed: int, name: str) -> Dataset:
    """Return held-out blocks as a dataset with a length; the first `limit` blocks of a stream, 1,000 by default."""
    if isinstance(blocks, IterableDataset):
        blocks = _take(blocks, limit or 1_000)
    return limit_rows(_not_empty(blocks, name), limit, seed)


def _take(stream: IterableDataset, limit: int) -> Dataset:
    blocks = list(islice(stream, limit))
    columns = {name: [block[name] for block in blocks] for name in _COLUMNS}
    return Dataset.from_dict(columns, features=_COLUMNS)


def _columns(rows: Any) -> list[str]:
    """Return the column names; those of a stream may be known only from its first row."""
    return rows.column_names or list(next(iter(rows), {}))


def _check_column(rows: Any, column: str, split: str) -> None:
    columns = _columns(rows)
    if not columns:
        raise UserError(
            "data",
            f"text in {split}",
            "no rows",
            why="there is nothing to learn from",
        )
    if column not in columns:
        raise UserError(
            "data.text_columns",
            "a column of text",
            f"{quoted(column)}, but {shown(split)} has {listed(columns)}",
            why="there is no text to read",
            fix="name one of them",
        )


def _filter_held_out(rows: Any, column: str, share: float, inside: bool) -> Any:
    return rows.filter(lambda text: is_held_out(str(text or ""), share) == inside, input_columns=column)


def _not_empty(blocks: Dataset, name: str) -> Dataset:
    if len(blocks) == 0:
        raise UserError(
            "data",
            f"text in {name}",
            "none that fills a block",
            why="there is nothing to learn from",
            fix=(
                "check data.text_columns, lower data.max_length, or give more texts (a fraction of the "
                "different ones is held out)"
            ),
        )
    return blocks


def _check_words(blocks: Dataset, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Raise UserError if no token can be masked."""
    special = tokenizer.all_special_ids
    if all(np.isin(block["input_ids"], special).all() for block in blocks):
        raise UserError(
            "data",
            f"words that the teacher's tokenizer knows in {name}",
            f"none in {len(blocks):,} blocks",
            why="no token could be masked",
            fix="use text in the teacher's language, or a teacher of the text's language",
        )


def _pack_all(rows: Any, packer: Packer, column: str, max_length: int, num_proc: int | None) -> Any:
    function, features = packer
    options: dict[str, Any] = {
        "batched": True,
        "batch_size": 1000,
        "remove_columns": _columns(rows),
    }
    if isinstance(rows, Dataset):
        options |= {
            "num_proc": num_proc if len(rows) > 5000 else None,
            "desc": "tokenising",
            "features": features,
        }
    return rows.map(partial(function, column=column, max_length=max_length), **options)


def pack(
    batch: dict[str, list[str | None]], tokenizer: PreTrainedTokenizerBase, column: str, max_length: int
) -> dict[str, list[np.ndarray]]:
    """Pack the documents of a batch into full blocks.

    The remainder that does not fill a last block (less than one block per 1,000 documents) is dropped.
    """
    texts = [text for text in batch[column] if text and not str(text).isspace()]
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    if not texts:
        return {"input_ids": [], "word_ids": []}
    encoded = tokenise(tokenizer, {column: texts}, add_special_tokens=False, return_attention_mask=False)
    words = [word_ids(encoded, i, len(ids)) for i, ids in enumerate(encoded["input_ids"])]
    ids = np.fromiter(chain.from_iterable((*tokens, sep) for tokens in encoded["input_ids"]), dtype=np.int32)
    starts = np.fromiter(chain.from_iterable((*numbers, -1) for numbers in words), dtype=np.int32)
    inner = max_length - 2
    blocks = len(ids) // inner
    return {
        "input_ids": [np.concatenate(([cls], ids[i * inner : (i + 1) * inner], [sep])) for i in range(blocks)],
        "word_ids": [np.concatenate(([-1], starts[i * inner : (i + 1) * inner], [-1])) for i in range(blocks)],
    }
