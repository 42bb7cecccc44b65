"""Datasets → rows → batches: text packed into blocks and masked, or the rows of a task."""

from distil_nlp.data.answers import AnswerColumns
from distil_nlp.data.corpus import load_corpus
from distil_nlp.data.kinds import data_module
from distil_nlp.data.loading import commit_of_data, load_splits
from distil_nlp.data.masking import MaskingCollator, token_frequencies
from distil_nlp.data.sequences import TaskCollator, TaskData, labelled_rows, load_task, unlabelled_rows
from distil_nlp.data.splits import Split, split_off
from distil_nlp.data.transfer_set import DataLimits, TransferSet

__all__ = [
    "AnswerColumns",
    "DataLimits",
    "MaskingCollator",
    "Split",
    "TaskCollator",
    "TaskData",
    "TransferSet",
    "commit_of_data",
    "data_module",
    "labelled_rows",
    "load_corpus",
    "load_splits",
    "load_task",
    "split_off",
    "token_frequencies",
    "unlabelled_rows",
]
