"""A vocabulary of 250,000 words, as multilingual models have it: its logits are in memory chunk by chunk."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.training.trainer import _chunk_rows
from tests.helpers import tiny
from tests.helpers.training import trainer

WORDS = 250_002
"""Words of XLM-R."""


class Largest(TorchDispatchMode):
    """Keeps the number of values of the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and look at what it gives."""
        output = func(*args, **(kwargs or {}))
        for one in output if isinstance(output, tuple | list) else [output]:
            if isinstance(one, torch.Tensor):
                self.values = max(self.values, one.numel())
        return output


@pytest.mark.integration
def test_the_logits_of_a_large_vocabulary_are_never_whole(tmp_path):
    """Prevents a tensor of rows × words, of which a batch of 32 × 512 tokens would need 16 GB for each model."""
    models = [tiny.mlm_model(depth, vocab_size=WORDS, hidden_size=8, intermediate_size=16) for depth in (1, 2)]
    distillation = trainer(tmp_path, *models, [SoftTargetKL(1.0, 2.0, "all"), HardLabel(1.0)], max_steps=1)
    chunk = _chunk_rows(models[0], distillation.args, distillation.objective)
    rows = len(next(iter(distillation.get_train_dataloader()))["rows"]["all"])
    assert chunk < rows / 5
    with Largest() as largest:
        distillation.train()
    assert largest.values == chunk * WORDS
