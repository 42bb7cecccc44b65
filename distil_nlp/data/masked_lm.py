"""Data of masked language modelling: blocks of text, masked dynamically in each epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from distil_nlp.data.corpus import corpus_evaluation_splits, load_corpus
from distil_nlp.data.masking import MaskingCollator, token_frequencies
from distil_nlp.data.overlap import training_rows_among
from distil_nlp.data.transfer_set import DataLimits, TransferSet
from distil_nlp.tasks import Head, Task


def load(splits: Any, tokenizer: PreTrainedTokenizerBase, task: Task, options: Any, limits: DataLimits) -> TransferSet:
    """Return packed blocks of text and the collator that masks them.

    Args:
        splits: as `load_splits` gives them.
        options: a recipe's section `data`, by attributes.
        limits: settings that all kinds of task share.
    """
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
        max_evaluation_rows=options.max_evaluation_rows,
        num_proc=options.num_proc,
        shuffle_buffer=options.shuffle_buffer,
        seed=limits.data_seed,
    )
    train, column = options.train_split, task.text_columns[0]
    others = {name: splits[name] for name in corpus_evaluation_splits(splits, train, options.evaluation_splits)}
    repeated = training_rows_among(splits[train], others, [column], train, by_length=True)
    split.repeated = repeated or dict.fromkeys(split.evaluation, 0)  # what is held out is held out by its content
    masking, log_weights = options.masking, None
    if masking.rare_token_power:
        log_weights = -masking.rare_token_power * np.log(token_frequencies(split.train, len(tokenizer)))
    collator = MaskingCollator(tokenizer, masking.probability, masking.whole_words, log_weights, limits.mask_seed)
    return TransferSet(task.name, Head(task.kind), split, collator)


def labelled_rows(rows: Any) -> Any:
    """Return all rows: masked text is its own label."""
    return rows
