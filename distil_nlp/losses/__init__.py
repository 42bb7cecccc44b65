"""What a student can match, as pure functions of tensors.

Every function returns the **sum** over its rows, never a mean: whoever calls it knows how many rows the
whole optimiser step has (all micro-batches, all processes) and divides by that once. Padding never gets
here, because rows are selected before. One file per thing matched; this package imports torch alone.
"""

from distil_nlp.losses.attention import (
    Probabilities,
    QueriesKeys,
    attention_kl,
    attention_log_probabilities,
    attention_mse,
    attention_sum,
    average_heads,
)
from distil_nlp.losses.hidden import hidden_cosine, hidden_mse
from distil_nlp.losses.logits import (
    TopLogits,
    hard_cross_entropy,
    hard_mse,
    soft_target_kl,
    soft_target_kl_top,
    soft_target_mse,
)
from distil_nlp.losses.vocabulary import weighed_sums

__all__ = [
    "Probabilities",
    "QueriesKeys",
    "TopLogits",
    "attention_kl",
    "attention_log_probabilities",
    "attention_mse",
    "attention_sum",
    "average_heads",
    "hard_cross_entropy",
    "hard_mse",
    "hidden_cosine",
    "hidden_mse",
    "soft_target_kl",
    "soft_target_kl_top",
    "soft_target_mse",
    "weighed_sums",
]
