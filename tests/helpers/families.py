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
