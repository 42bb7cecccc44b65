"""A tiny teacher of another family: RoBERTa with a byte-level BPE tokenizer, trained here in milliseconds."""

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaForTokenClassification,
)

from tests.helpers import tiny

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")


@lru_cache
def _trained() -> str:
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    settings = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    built.train_from_iterator(tiny.SENTENCES * 4, settings)
    built.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return built.to_str()


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of some 300 tokens, with RoBERTa's special tokens and inputs."""
    return with_special_tokens(Tokenizer.from_str(_trained()))


def with_special_tokens(built: Tokenizer) -> PreTrainedTokenizerFast:
    """Return a tokenizer with RoBERTa's special tokens and inputs."""
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def classifier(num_layers: int, num_labels: int = 2, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return RoBERTa of width 32, as `tiny.classifier` is BERT; without dropout."""
    return _seeded(RobertaForSequenceClassification, seed, num_layers, num_labels=num_labels, **changes)


def tagger(num_layers: int, num_labels: int = 3, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return RoBERTa with a head on tokens."""
    return _seeded(RobertaForTokenClassification, seed, num_layers, num_labels=num_labels, **changes)


def mlm_model(num_layers: int, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return RoBERTa with a head over its vocabulary."""
    return _seeded(RobertaForMaskedLM, seed, num_layers, **changes)


def _seeded(model: type[PreTrainedModel], seed: int, num_layers: int, **changes: Any) -> PreTrainedModel:
    fields: dict[str, Any] = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model(RobertaConfig(**(fields | changes))).eval()
