"""The smallest tokenizer and models that behave like the real ones, built offline in milliseconds."""

from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertTokenizerFast,
    PreTrainedModel,
)

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    "the a cat dog bird fish tree house river stone sees likes eats finds takes keeps big small red blue old new "
    "fast slow good bad not and or but on in under over with . , ? good walk play"
)
PIECES = ("##s", "##ed", "##ing", "##er", "##ly")
VOCABULARY = tuple(dict.fromkeys((*SPECIALS, *WORDS.split(), *PIECES, *"abcdefghij")))
SENTENCES = (
    "the cat sees the dog .",
    "a big red bird walked slowly under the old tree .",
    "the river sees not good , but the fish likes the stone",
    "playing dogs and walking cats finds the small stone over the house .",
)
"""Texts of words in the vocabulary, some of them as several word pieces."""


def tokenizer(**changes: Any) -> BertTokenizerFast:
    """Return a WordPiece tokenizer of about 60 tokens, the special ones first."""
    return BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCABULARY)}, **changes)


def bert_config(num_layers: int, **changes: Any) -> BertConfig:
    """Return BERT of width 32 without dropout, so that two forwards of a model in training mode agree."""
    fields = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
    }
    return BertConfig(**(fields | changes))


def mlm_model(num_layers: int, seed: int = 0, **changes: Any) -> PreTrainedModel:
    return _seeded(BertForMaskedLM, seed, bert_config(num_layers, **changes))


def classifier(num_layers: int, num_labels: int = 2, seed: int = 0, **changes: Any) -> PreTrainedModel:
    return _seeded(BertForSequenceClassification, seed, bert_config(num_layers, num_labels=num_labels, **changes))


def tagger(num_layers: int, num_labels: int = 3, seed: int = 0, **changes: Any) -> PreTrainedModel:
    return _seeded(BertForTokenClassification, seed, bert_config(num_layers, num_labels=num_labels, **changes))


def reader(num_layers: int, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return a model that answers questions from a text."""
    return _seeded(BertForQuestionAnswering, seed, bert_config(num_layers, **changes))


def _seeded(kind: type[PreTrainedModel], seed: int, config: BertConfig) -> PreTrainedModel:
    """Return a model with weights by seed; the caller's random state is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(config).eval()
