"""A run left alone: memory, open files and logs stay as they are. `LONG_RUN_MINUTES=3` makes it shorter."""

import os
import time

import psutil
import pytest
from transformers import TrainerCallback

from tests.helpers import tiny
from tests.helpers.training import text_rows, trainer

MINUTES = float(os.environ.get("LONG_RUN_MINUTES", "60"))
EVERY = 2.0
"""Seconds between two checks."""


class Watch(TrainerCallback):
    """Checks the process, and stops the run when its time is over."""

    def __init__(self):
        self.process, self.began, self.looks = psutil.Process(), time.monotonic(), []
        self.run = None

    def on_step_end(self, args, state, control, **kwargs):
        now = time.monotonic() - self.began
        if not self.looks or now - self.looks[-1]["seconds"] > EVERY:
            times = self.process.cpu_times()
            self.looks.append(
                {
                    "seconds": now,
                    "cpu": times.user + times.system,
                    "tokens": self.run.tokens_seen,
                    "mib": self.process.memory_info().rss / 2**20,
                    "files": self.process.num_fds(),
                }
            )
        control.should_training_stop = now > 60 * MINUTES

    def tenth(self, i):
        return self.looks[i * len(self.looks) // 10 : (i + 1) * len(self.looks) // 10]


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES + 600)
def test_an_hour_leaves_memory_files_and_logs_as_they_were(tmp_path, capsys):
    """Prevents a leak that ends a run of days: checkpoints, evaluations and epochs come by the hundred."""
    watch = Watch()
    watch.run = run = trainer(
        tmp_path, tiny.mlm_model(2, seed=1, hidden_dropout_prob=0.1), tiny.mlm_model(4), rows=text_rows(400),
        eval_rows=text_rows(16, seed=3), callbacks=[watch], max_steps=10**6, logging_steps=500,
        save_strategy="steps", save_steps=500, save_total_limit=2, eval_strategy="steps", eval_steps=500,
    )  # fmt: skip
    run.train()
    early, late = watch.tenth(1), watch.tenth(9)
    memory = [sum(look["mib"] for look in part) / len(part) for part in (early, late)]
    speeds = [(part[-1]["tokens"] - part[0]["tokens"]) / (part[-1]["cpu"] - part[0]["cpu"]) for part in (early, late)]
    with capsys.disabled():
        print(
            f"\n{watch.looks[-1]['seconds'] / 60:.1f} minutes, {run.state.global_step:,} steps: "
            f"{memory[0]:.1f} → {memory[1]:.1f} MiB, {early[0]['files']} → {late[-1]['files']} open files, "
            f"{speeds[1] / speeds[0]:.3f} of the early tokens per CPU second, {len(run.state.log_history)} log entries"
        )
    assert memory[1] < memory[0] * 1.02 + 2
    assert max(look["files"] for look in late) <= max(look["files"] for look in early)
    assert len(run.state.log_history) <= 2 * (run.state.global_step // 500 + 1)
