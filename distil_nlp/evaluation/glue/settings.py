"""What is chosen for a GLUE evaluation; light enough for `--help`."""

from __future__ import annotations

from dataclasses import dataclass

SEEDS = [42, 43, 44, 45, 46]
"""Five, as DistilBERT reports them."""


@dataclass(frozen=True)
class FinetuningSettings:
    """How a model is fine-tuned on every task. The defaults are those of BERT's own `run_classifier.py`.

    Attributes:
        epochs: passes over a task's training rows.
        learning_rate: the highest; it rises over the warm-up and falls linearly to 0. BERT's authors tried 2e-5 to
            5e-5.
        batch_size: rows of an optimiser step over all processes.
        max_length: tokens of an input; longer ones are cut.
        warmup: share of the steps.
        weight_decay: of AdamW.
        max_train_rows: at most as many, drawn once for all seeds. For trying out.
        max_steps: instead of epochs. For trying out.
        from_mnli: RTE, MRPC and STS-B start from the encoder fine-tuned on MNLI with the same seed, as in RoBERTa
            (arXiv:1907.11692) and ALBERT (arXiv:1909.11942).
        bf16: mixed precision.
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
        """Whether training is cut short, so that no score compares with published ones."""
        return self.max_train_rows is not None or self.max_steps is not None


def parse_seeds(text: str) -> list[int]:
    """`5` is a count (42 to 46), `1,2,3` a list; one seed of one's own is `7,`.

    Raises:
        ValueError: for anything else, a seed that comes twice, or one that numpy does not take.
    """
    if text.isdecimal() and int(text) > 0:
        return list(range(SEEDS[0], SEEDS[0] + int(text)))
    seeds = [int(part) for part in text.removesuffix(",").split(",")]
    if "," not in text or len(set(seeds)) < len(seeds) or not all(0 <= seed < 2**32 for seed in seeds):
        raise ValueError(text)
    return seeds
