"""Tiny models of every family of encoders."""

from __future__ import annotations

import warnings

import torch
import transformers

FAMILIES = {
    "Bert": {},
    "Roberta": {},
    "Electra": {"embedding_size": 16},
    "DistilBert": {},
    "Albert": {"embedding_size": 16},
    "MobileBert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "ModernBert": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "DebertaV2": {},
    "MPNet": {},
}
LAYERS = 4
ROWS = {"head": torch.tensor([0, 3, 12]), "all": torch.tensor([*range(9), *range(9, 15)])}


def model_of(family, **changes):
    sizes = {"vocab_size": 100, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "max_position_embeddings": 64}
    sizes |= {"dim": 32, "hidden_dim": 64} if family == "DistilBert" else {"hidden_size": 32, "intermediate_size": 64}
    config = getattr(transformers, f"{family}Config")(**sizes, **FAMILIES.get(family, {}), **changes)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return getattr(transformers, f"{family}ForMaskedLM")(config).eval()


def batch():
    ids = torch.randint(5, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


_SIZES = {
    "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 130, "type_vocab_size": 2, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
}  # fmt: skip
_OWN_NAMES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
_XLM = {"emb_dim": 32, "n_layers": LAYERS, "n_heads": 4, "pad_index": 0}
_DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "type_vocab_size": 0, "pooler_hidden_size": 32}
CLASSIFIERS = {
    "Albert": {"embedding_size": 16},
    "Bert": {},
    "BigBird": {"block_size": 4, "num_random_blocks": 1},
    "Camembert": {},
    "Canine": {
        "num_hash_buckets": 150, "local_transformer_stride": 8, "attend_from_chunk_width": 16, "downsampling_rate": 4,
        "attend_from_chunk_stride": 16, "attend_to_chunk_width": 16, "attend_to_chunk_stride": 16, "vocab_size": None,
    },
    "ConvBert": {"embedding_size": 16},
    "Data2VecText": {},
    "Deberta": _DEBERTA,
    "DebertaV2": _DEBERTA | {"position_buckets": 16, "conv_kernel_size": 3, "position_biased_input": False},
    "DistilBert": {"dim": 32, "hidden_dim": 64, "n_layers": LAYERS, "n_heads": 4},
    "Electra": {"embedding_size": 16},
    "Ernie": {},
    "Esm": {"position_embedding_type": "rotary", "token_dropout": False, "mask_token_id": 4},
    "Esmc": {},
    "EuroBert": {},
    "FNet": {},
    "Flaubert": _XLM,
    "Funnel": {"block_sizes": [2, 1, 1], "d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64},
    "Gte": {},
    "IBert": {},
    "JinaEmbeddingsV3": {},
    "LayoutLM": {},
    "LayoutLMv3": {"visual_embed": False, "coordinate_size": 4, "shape_size": 8},
    "Lilt": {"hidden_size": 48},
    "Longformer": {"attention_window": 8},
    "Luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "MPNet": {},
    "MarkupLM": {},
    "MegatronBert": {},
    "MobileBert": {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    "ModernBert": {},
    "ModernBertDecoder": {},
    "Mra": {"block_per_row": 1},
    "NomicBert": {},
    "Nystromformer": {"segment_means_seq_len": 16, "num_landmarks": 16, "conv_kernel_size": 3},
    "Reformer": {
        "axial_pos_embds": False, "attn_layers": ["local", "lsh"] * 2, "feed_forward_size": 64, "num_buckets": 2,
        "attention_head_size": 8, "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8, "is_decoder": False,
    },
    "RemBert": {"input_embedding_size": 16, "output_embedding_size": 24},
    "RoCBert": {
        "pronunciation_vocab_size": 100, "shape_vocab_size": 100, "pronunciation_embed_dim": 16, "shape_embed_dim": 16,
    },
    "RoFormer": {},
    "Roberta": {},
    "RobertaPreLayerNorm": {},
    "SqueezeBert": {"embedding_size": 32},
    "Tapas": {"type_vocab_sizes": [3, 2, 2, 2, 2, 2, 2], "type_vocab_size": None},
    **({"Ultrabert": {"prediction_head_size": 32}} if hasattr(transformers, "UltrabertConfig") else {}),
    "XLM": _XLM,
    "XLMRoberta": {},
    "XLMRobertaXL": {},
    "XLNet": {"d_model": 32, "n_layer": LAYERS, "n_head": 4, "d_inner": 64},
    "Xmod": {"languages": ["en_XX", "de_DE"], "default_language": "en_XX"},
    "Yoso": {},
}  # fmt: skip
"""Fields of a tiny classifier of each family, besides or instead of the common sizes."""


def classifier_of(family, **changes):
    """Return a tiny classifier of four blocks; see `with_random_norms`."""
    model_class = getattr(transformers, f"{family}ForSequenceClassification")
    return with_random_norms(model_class, tiny_config(family, **changes))


def tiny_config(family, **changes):
    """Return the configuration of a tiny model of four blocks."""
    own = _OWN_NAMES if family in ("Funnel", "XLNet") else ()
    fields = {name: size for name, size in _SIZES.items() if name not in own} | CLASSIFIERS[family] | changes
    config_class = getattr(transformers, f"{family}Config")
    return config_class(**{name: value for name, value in fields.items() if value is not None})


def with_random_norms(model_class, config):
    """Return a model with random weights, no two alike: norms of ones would hide a mistake."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = model_class(config).eval()
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return model
