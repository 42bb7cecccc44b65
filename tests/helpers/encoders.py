"""Tiny encoders of all the families that people bring, with the head of their choice."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

_SIZES = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "max_position_embeddings": 48,
}  # fmt: skip
_IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
_XLM = {"emb_dim": 32, "n_layers": 2, "n_heads": 4}
_RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8}

ENCODERS: dict[str, dict[str, Any]] = {
    "Bert": {}, "Roberta": {}, "XLMRoberta": {}, "Camembert": {}, "Electra": {"embedding_size": 16},
    "DistilBert": {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4}, "Albert": {"embedding_size": 16},
    "MobileBert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32}, "ModernBert": _IDS,
    "Deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "DebertaV2": {**_RELATIVE, "position_biased_input": False, "type_vocab_size": 0}, "MPNet": {},
    "ConvBert": {"embedding_size": 32, "conv_kernel_size": 3}, "RoFormer": {"embedding_size": 32},
    "RemBert": {"input_embedding_size": 16, "output_embedding_size": 16}, "MegatronBert": {}, "Ernie": {},
    "Data2VecText": {}, "IBert": {}, "Xmod": {"languages": ["en_XX"], "default_language": "en_XX"}, "Yoso": {},
    "Mra": {}, "FNet": {"tpu_short_seq_length": 48}, "RobertaPreLayerNorm": {}, "XLMRobertaXL": {},
    "Esm": {"mask_token_id": 4, "position_embedding_type": "rotary"}, "Luke": {"entity_vocab_size": 9},
    "LayoutLM": {}, "SqueezeBert": {"embedding_size": 32}, "BigBird": {"attention_type": "original_full"},
    "Longformer": {"attention_window": [8, 8]}, "XLM": _XLM, "Flaubert": _XLM, "NomicBert": {}, "Gte": {},
}  # fmt: skip
"""Fields of each family's configuration besides the sizes that all share."""


def encoder_config(family: str, **changes: Any) -> PretrainedConfig:
    sizes = _SIZES if "n_layers" not in ENCODERS[family] else {k: _SIZES[k] for k in list(_SIZES)[::5]}
    return getattr(transformers, f"{family}Config")(**{"pad_token_id": 1, **sizes, **ENCODERS[family], **changes})


def encoder(family: str, head: str = "ForSequenceClassification", **changes: Any) -> PreTrainedModel:
    """Return a model of a family with random weights; `head` is the end of its class's name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        names = [f"{family}{head}", f"{family}{head.replace('ForMaskedLM', 'WithLMHeadModel')}"]
        cls = next(getattr(transformers, name) for name in names if hasattr(transformers, name))
        return cls(encoder_config(family, **changes)).eval()
