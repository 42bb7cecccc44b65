"""A process of a distributed run, started by torchrun; trains, and writes the values that the test compares."""

from pathlib import Path

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from transformers import TrainerCallback

from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.balancing import LossBalancer
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.mixing import Mixing
from distil_nlp.training.checkpoints import last_complete_checkpoint
from tests.helpers import tiny
from tests.helpers.training import StopAt, curve, text_rows, trainer
from tests.helpers.worker import write_results

ZERO_2 = {
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "zero_optimization": {"stage": 2},
    "zero_allow_untested_optimizer": True,  # torch's AdamW
    "zero_force_ds_cpu_optimizer": False,
}


class CountExchanges(TrainerCallback):
    """Counts how often DDP exchanges gradients, all of which fit into one bucket."""

    def __init__(self):
        self.count, self.model = 0, None

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        if self.model is None and isinstance(self.trainer.model_wrapped, DistributedDataParallel):
            self.model = self.trainer.model_wrapped
            self.model.register_comm_hook(None, self.exchange)

    def exchange(self, state, bucket):
        self.count += 1
        return allreduce_hook(None, bucket)


def train(
    folder: Path,
    batch: int,
    accumulation: int,
    rows: int,
    caches: str | None = None,
    stop_at: int | None = None,
    zero_2: bool = False,
    balance: str | None = None,
    weighting: str | None = None,
) -> dict:
    """Return curves of a run of two epochs over ragged rows, with a projection and teacher outputs cached in `caches`.

    It continues from an existing checkpoint. With a `weighting` there are two teachers.
    """
    teacher = tiny.mlm_model(4)
    if weighting:
        teacher = Ensemble([teacher, tiny.mlm_model(2, 5)], Mixing((1.0, 2.0), "probabilities", weighting))
    student = tiny.mlm_model(2, seed=1, hidden_size=16, intermediate_size=32)
    terms = [SoftTargetKL(5.0, 2.0, "all"), HardLabel(2.0), HiddenMSE(1.0), HiddenCosine(1.0, "last", 0.5)]
    terms.append(AttentionKL(3.0))
    run = trainer(
        folder,
        student,
        teacher,
        terms,
        rows=text_rows(rows),
        eval_rows=text_rows(7, seed=9),
        cache=caches and CacheConfig(caches, dtype="float32", top_k=len(tiny.VOCABULARY), mask_epochs=2),
        per_device_train_batch_size=batch,
        per_device_eval_batch_size=2,
        gradient_accumulation_steps=accumulation,
        max_steps=-1,
        num_train_epochs=2,
        callbacks=[exchanges := CountExchanges(), StopAt(stop_at)],
        deepspeed=ZERO_2 if zero_2 else None,
        balance=balance and LossBalancer(balance, every=2),
    )
    exchanges.trainer = run
    checkpoint = last_complete_checkpoint(folder)
    run.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    metrics = run.evaluate()
    wrapper = type(run.model_wrapped).__name__
    tokens = run.accelerator.reduce(torch.tensor(float(run.tokens_seen))).item()
    names = ["loss", "grad_norm", *run.objective.names]
    return {
        "world_size": run.args.world_size,
        "wrapper": wrapper,
        "tokens": tokens,
        "steps": run.state.global_step,
        "exchanges": exchanges.count,
        "curves": {name: curve(run, name) for name in names},
        "eval": {name: value for name, value in metrics.items() if name[5:] in names or name == "eval_accuracy"},
    }


if __name__ == "__main__":
    write_results(train)
