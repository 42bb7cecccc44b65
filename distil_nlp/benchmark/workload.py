"""The workload of the contenders: the same weights, batches and terms for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (  # type: ignore[attr-defined]  # which lacks the other name of BertTokenizer
    BertConfig,
    BertForMaskedLM,
    BertTokenizerFast,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)

from distil_nlp.data import MaskingCollator
from distil_nlp.models import build_student, choose_layers

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TEMPERATURE = 2.0
WEIGHTS = {"soft_target_kl": 5.0, "hard_label": 2.0, "hidden_cosine": 1.0}
MAX_GRAD_NORM = 5.0
"""DistilBERT's settings (arXiv:1910.01108 and its authors' code)."""


@dataclass(frozen=True)
class WorkloadSize:
    """The shape of a BERT."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    inner: int = 3072
    words: int = 30522


SIZES = {"base": WorkloadSize(), "mini": WorkloadSize(6, 384, 12, 1536), "tiny": WorkloadSize(4, 32, 4, 64, 100)}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The device and precision of a workload.

    Attributes:
        device: `cpu` or `cuda`.
        bf16: mixed precision for the student, and bf16 weights for the teacher.
    """

    device: str = "cpu"
    bf16: bool = False

    def place(self, student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[PreTrainedModel, PreTrainedModel]:
        """Return (student, frozen teacher) on the device."""
        device: Any = self.device  # transformers wraps `to` without its types
        teacher = teacher.to(device, torch.bfloat16 if self.bf16 else torch.float32)
        return student.to(device), teacher.requires_grad_(False)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)


@dataclass(frozen=True)
class Workload(Placement):
    """A language-modelling step.

    Attributes:
        size: of the teacher; the student has half its layers, in DistilBERT's classes.
        batch, length: rows of packed tokens, 15 % of them masked.
    """

    size: WorkloadSize = WorkloadSize()
    batch: int = 8
    length: int = 128

    def models(self, attention: str = "sdpa") -> tuple[PreTrainedModel, PreTrainedModel]:
        """Return (student, teacher), with the same random weights each time."""
        size = self.size
        config = BertConfig(
            vocab_size=size.words, hidden_size=size.width, num_hidden_layers=size.layers,
            num_attention_heads=size.heads, intermediate_size=size.inner,
            max_position_embeddings=max(512, self.length),
        )  # fmt: skip
        torch.manual_seed(0)
        teacher = BertForMaskedLM(config).eval()
        layers = choose_layers("every_other", size.layers, None)
        student, _ = build_student(teacher, layers, architecture="distilbert")
        for model in (student, teacher):
            model.set_attn_implementation(attention)
        return self.place(student, teacher)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        words = [*SPECIALS, *(f"w{i}" for i in range(self.size.words - len(SPECIALS)))]
        return BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})

    def rows(self, count: int) -> list[dict[str, Any]]:
        """Return full blocks of random tokens."""
        ids = np.random.default_rng(0).integers(len(SPECIALS), self.size.words, (count, self.length))
        ids[:, 0], ids[:, -1] = SPECIALS.index("[CLS]"), SPECIALS.index("[SEP]")
        return [{"input_ids": row} for row in ids.tolist()]

    def collator(self) -> MaskingCollator:
        return MaskingCollator(self.tokenizer)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Yield batches without end, for loops that bring no data loader of their own."""
        rows: Any = self.rows(64 * self.batch)
        loader: DataLoader = DataLoader(rows, batch_size=self.batch, collate_fn=self.collator())
        return chain.from_iterable(repeat(loader))

    def arguments(self, **changes: Any) -> TrainingArguments:
        """Return DistilBERT's training arguments, for contenders that use `Trainer`."""
        fields = {
            "max_steps": 10_000,
            "learning_rate": 5e-4,
            "adam_beta2": 0.98,
            "adam_epsilon": 1e-6,
            "max_grad_norm": MAX_GRAD_NORM,
        }
        return bare_arguments(self.batch, self.device, self.bf16, **{**fields, **changes})

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def masked(self) -> int:
        """Masked tokens of a step: those the head must run on if the loss counts no others."""
        return self.batch * int(0.15 * (self.length - 2) + 0.5)


def bare_arguments(batch: int, device: str, bf16: bool, **fields: Any) -> TrainingArguments:
    """Return the arguments of a `Trainer` that only takes steps: it saves nothing and shows nothing."""
    return TrainingArguments(
        tempfile.mkdtemp(prefix="benchmark-"),
        per_device_train_batch_size=batch,
        bf16=bf16,
        use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
        logging_steps=50,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **fields,
    )


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of `Workload.arguments`, fused too, so that no loop is slowed by an older kernel."""
    return torch.optim.AdamW(model.parameters(), lr=5e-4, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.0, fused=True)


def update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, max_norm: float) -> None:
    """Run the backward pass, clip the gradients by their norm, and take a step of the optimizer."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()
