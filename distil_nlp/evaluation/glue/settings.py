"""Settings of a GLUE evaluation; cheap to import, for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = [42, 43, 44, 45, 46]
"""Default seeds: five, as in DistilBERT's report."""


@dataclass(frozen=True)
class FinetuningSettings:
    """Settings of all fine-tunings. The defaults are those of BERT's own `run_classifier.py`.

    Attributes:
        epochs: passes over a task's training rows.
        learning_rate: its peak; it rises over the warm-up and falls linearly to 0. BERT's authors tried 2e-5 to
            5e-5.
        batch_size: rows of an optimiser step over all processes.
        max_length: tokens of an input; longer ones are cut.
        warmup: fraction of the steps.
        weight_decay: of AdamW.
        max_train_rows: upper limit of training rows, drawn once for all seeds. For trials.
        max_steps: steps instead of epochs. For trials.
        from_mnli: whether RTE, MRPC and STS-B start from the encoder fine-tuned on MNLI with the same seed, as in
            RoBERTa (arXiv:1907.11692) and ALBERT (arXiv:1909.11942).
        bf16: whether to train in mixed precision.
    """

    epochs: float = 3.0
    learning_rate: float = 5e-5
    batch_size: int = 32
    max_length: int = 128
    warmup: float = 0.1
    weight_decay: float = 0.01
    max_train_rows: int | None = None
    max_steps: int | None = None
    from_mnli: bool = False
    bf16: bool = False

    @property
    def is_trial(self) -> bool:
        """True if training is cut short, so that no score compares with published ones."""
        return self.max_train_rows is not None or self.max_steps is not None


def parse_seeds(text: str) -> list[int]:
    """Return the seeds of an option: `5` is a count (42 to 46), `1,2,3` a list, `7,` a single seed.

    Raises:
        ValueError: for anything else, for a repeated seed, or a number that numpy does not take as a seed.
    """
    if text.isdecimal() and int(text) > 0:
        return list(range(SEEDS[0], SEEDS[0] + int(text)))
    seeds = [int(part) for part in text.removesuffix(",").split(",")]
    if "," not in text or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(text)
    return seeds
