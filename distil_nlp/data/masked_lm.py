"""Data of masked language modelling: blocks of text, masked dynamically in each epoch."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.common_corpus import BLOCK_COLUMNS, pack_alike
from distil_nlp.data.common_masking import CommonMaskingCollator
from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.data.corpus import corpus_evaluation_splits, load_corpus
from distil_nlp.data.encodings import encoding_name
from distil_nlp.data.masking import MaskingCollator, token_frequencies, word_positions
from distil_nlp.data.overlap import training_rows_among
from distil_nlp.data.span_masking import SpanMaskingCollator
from distil_nlp.data.splits import without_counts
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.models import count_ids
from distil_nlp.tasks import Head, Task
from distil_nlp.utils.logging import get_logger

logger = get_logger(__name__)

SCORED_PROBABILITY = 0.15
"""Fraction of the tokens that are masked for scores where training masks none."""
_LOOKED_AT = 200
"""Blocks by which the length of words is judged."""


def load(splits: Any, tokenizer: PreTrainedTokenizerBase, task: Task, options: Any, limits: DataLimits) -> TransferSet:
    """Return packed blocks of text and the collator that masks them.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.
    """
    vocabulary, packer = None, None
    if limits.encodings:
        other = limits.encodings[encoding_name(0)]
        vocabulary = CommonVocabulary.of(tokenizer, other)
        packer = (partial(pack_alike, tokenizers=(tokenizer, other), vocabulary=vocabulary), BLOCK_COLUMNS)
    split = load_corpus(
        splits,
        tokenizer,
        text_column=task.text_columns[0],
        train_split=options.train_split,
        evaluation_splits=options.evaluation_splits,
        max_length=options.max_length,
        held_out_share=options.held_out_share,
        selection_share=limits.selection_share,
        max_train_rows=options.max_train_rows,
        share=options.share,
        max_evaluation_rows=options.max_evaluation_rows,
        num_proc=options.num_proc,
        shuffle_buffer=options.shuffle_buffer,
        seed=limits.data_seed,
        packer=packer,
    )
    split = without_counts(split)
    train, column = options.train_split, task.text_columns[0]
    others = {name: splits[name] for name in corpus_evaluation_splits(splits, train, options.evaluation_splits)}
    repeated = training_rows_among(splits[train], others, [column], train, by_length=True)
    split.repeated = repeated or dict.fromkeys(split.evaluation, 0)  # what is held out is held out by its content
    masking, log_weights = options.masking, None
    if masking.rare_token_power:
        log_weights = -masking.rare_token_power * np.log(token_frequencies(split.train, count_ids(tokenizer)))
    kind: Any
    kind, words = (SpanMaskingCollator, True) if masking.spans else (MaskingCollator, masking.whole_words)
    if vocabulary is not None:
        kind, words = partial(CommonMaskingCollator, other=other, vocabulary=vocabulary), True
    collator = kind(tokenizer, masking.probability, words, log_weights, limits.mask_seed)
    scoring = None if masking.probability else replace(collator, probability=SCORED_PROBABILITY)
    if words:
        _warn_of_long_words(next(iter(split.evaluation.values())), scoring or collator)
    data = TransferSet(task.name, Head(task.kind), split, collator, scoring_collator=scoring)
    data.vocabulary = vocabulary
    return data


def _warn_of_long_words(rows: Any, collator: MaskingCollator) -> None:
    """Log a warning if most tokens are in words that are too long to be masked whole, as in text without spaces."""
    long, all_tokens = 0, 0
    for row in islice(rows, _LOOKED_AT):
        number = max(1, int(collator.probability * (len(row["input_ids"]) - 2) + 0.5))
        words = word_positions(np.flatnonzero(np.asarray(row["word_ids"]) >= 0), row["word_ids"])
        long += sum(len(word) for word in words if len(word) > number)
        all_tokens += sum(map(len, words))
    if long > all_tokens / 2:
        logger.warning(
            f"{collator.key}: {long / all_tokens:.0%} of the tokens are in words of more tokens than a block "
            "has to mask, as in text without spaces: they are masked one by one"
        )


def labelled_rows(rows: Any) -> Any:
    """Return all rows: masked text is its own label."""
    return rows
