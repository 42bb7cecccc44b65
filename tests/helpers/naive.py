"""The gradient of an optimiser step as the definitions have it: whole models in float64, eager attention, token by
token, each term's mean over all its tokens of the step; nothing is shared with what it checks but the batches."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """What a step minimises: Σ weight · mean. Hidden states and attention are those of the last layers.

    Attributes:
        weights: of `soft_target_kl`, `hard_label`, `hidden_cosine`, `attention_kl`.
        rows: which tokens `soft_target_kl` looks at, language modelling only.
        hidden_rows: which tokens `hidden_cosine` looks at.
    """

    kind: str
    weights: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 2.0
    rows: str = "all"
    hidden_rows: str = "all"


def gradient(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Sequence[Batch], step: Step
) -> dict[str, Tensor]:
    """Name → gradient, for all parameters that have one."""
    student, teacher = _exact(student), _exact(teacher)
    sums: dict[str, list[Tensor]] = {name: [] for name in step.weights}
    counts = dict.fromkeys(step.weights, 0)
    for batch in batches:
        for name, (values, count) in _terms(student, teacher, batch, step).items():
            sums[name].append(values)
            counts[name] += count
    total = sum(weight * sum(sums[name]) / max(counts[name], 1) for name, weight in step.weights.items())
    total.backward()
    return {name: one.grad for name, one in student.named_parameters() if one.grad is not None}


def _exact(model: PreTrainedModel) -> PreTrainedModel:
    model = copy.deepcopy(model).double().eval()
    model.set_attn_implementation("eager")
    return model


def _terms(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch, step: Step
) -> dict[str, tuple[Tensor, int]]:
    """Name → (sum over this batch, number of its rows)."""
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = {name: batch[name] for name in names if name in batch}
    seen = {"output_hidden_states": True, "output_attentions": True}
    ours = student(**inputs, **seen)
    with torch.no_grad():
        theirs = teacher(**inputs, **seen)
    width = batch["input_ids"].shape[1]
    tokens = [divmod(place, width) for place in batch["rows"]["all"].tolist()]
    places = {
        "all": tokens,
        "masked": [at for at in tokens if "labels" in batch and step.kind == "mlm" and batch["labels"][at] != -100],
    }
    for name in {step.rows, step.hidden_rows} - places.keys():  # a drawn share, as it was drawn
        places[name] = [divmod(place, width) for place in batch["rows"][name].tolist()]
    if step.kind == "mlm":
        soft, hard = places[step.rows], places["masked"]
        answers = [int(batch["labels"][at]) for at in hard]
    else:
        soft = sorted({row for row, _ in tokens})
        hard = [row for row in soft if _is_label(batch["labels"][row])]
        answers = [batch["labels"][row] for row in hard]
    zero = ours.logits.sum() * 0.0
    found = {
        "soft_target_kl": (sum((_soft(ours.logits[at], theirs.logits[at], step) for at in soft), zero), len(soft)),
        "hard_label": (
            sum((_hard(ours.logits[at], answer, step) for at, answer in zip(hard, answers, strict=True)), zero),
            len(hard),
        ),
    }
    one, other = ours.hidden_states[-1], theirs.hidden_states[-1]
    cosines = (1 - torch.dot(one[at], other[at]) / one[at].norm() / other[at].norm() for at in places[step.hidden_rows])
    found["hidden_cosine"] = (sum(cosines, zero), len(places[step.hidden_rows]))
    maps = (
        _kl(theirs.attentions[-1][row, head, query], ours.attentions[-1][row, head, query]) / one_head
        for row, query in tokens
        for one_head in [ours.attentions[-1].shape[1]]
        for head in range(one_head)
    )
    found["attention_kl"] = (sum(maps, zero), len(tokens))
    return {name: found[name] for name in step.weights}


def _soft(ours: Tensor, theirs: Tensor, step: Step) -> Tensor:
    if step.kind == "regression":
        return (ours - theirs).square().sum()
    t = step.temperature
    return t**2 * _kl((theirs / t).softmax(-1), (ours / t).softmax(-1))


def _hard(ours: Tensor, answer: Any, step: Step) -> Tensor:
    if step.kind == "regression":
        return (ours.squeeze() - answer.double()).square()
    return -F.log_softmax(ours, -1)[int(answer)]


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Σ p · log(p / q) over what p gives any probability."""
    known = p > 0
    return (p[known] * (p[known].log() - q[known].log())).sum()


def _is_label(label: Tensor) -> bool:
    return not bool(label.isnan()) if label.is_floating_point() else int(label) != -100
