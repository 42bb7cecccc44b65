"""The gradient of an optimiser step by the definitions, independent of the code under test.

Models run in float64 with eager attention, losses token by token, and each term is the mean over all its tokens of the
step. Only the batches are shared with the code under test.
"""

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
    """The loss of a step: Σ weight · mean. Hidden states and attention are those of the last layers.

    Attributes:
        weights: weights of `soft_target_kl`, `hard_label`, `hidden_cosine`, `attention_kl`.
        rows: row set of `soft_target_kl`, where outputs are of tokens.
        hidden_rows: row set of `hidden_cosine`.
    """

    kind: str
    weights: Mapping[str, float] = field(default_factory=dict)
    temperature: float = 2.0
    rows: str = "all"
    hidden_rows: str = "all"


def gradient(
    student: PreTrainedModel, teacher: PreTrainedModel, batches: Sequence[Batch], step: Step
) -> dict[str, Tensor]:
    """Return name → gradient, for all parameters that have a gradient."""
    student, teacher = _exact(student), _exact(teacher)
    sums: dict[str, list[Tensor]] = {name: [] for name in step.weights}
    counts = dict.fromkeys(step.weights, 0)
    for batch in batches:
        for name, (values, count) in _terms(student, teacher, batch, step).items():
            sums[name].append(values)
            counts[name] += count
    total = sum(weight * sum(sums[name]) / max(counts[name], 1) for name, weight in step.weights.items())
    total.backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


def _exact(model: PreTrainedModel) -> PreTrainedModel:
    model = copy.deepcopy(model).double().eval()
    model.set_attn_implementation("eager")
    return model


def _terms(
    student: PreTrainedModel, teacher: PreTrainedModel, batch: Batch, step: Step
) -> dict[str, tuple[Tensor, int]]:
    """Return name → (sum over a batch, number of its rows)."""
    own_rows = {"mlm": "masked", "tokens": "labelled"}.get(step.kind)
    names = ("input_ids", "token_type_ids", "attention_mask")
    inputs = {name: batch[name] for name in names if name in batch}
    outputs = {"output_hidden_states": True, "output_attentions": True}
    student_output = student(**inputs, **outputs)
    with torch.no_grad():
        teacher_output = teacher(**inputs, **outputs)
    width = batch["input_ids"].shape[1]
    tokens = [divmod(place, width) for place in batch["rows"]["all"].tolist()]
    places = {
        "all": tokens,
        "masked": [at for at in tokens if "labels" in batch and own_rows == "masked" and batch["labels"][at] != -100],
    }
    if own_rows == "labelled":
        inner = {(row, max(at for own, at in tokens if own == row)) for row, _ in tokens} | {
            (row, 0) for row, _ in tokens
        }
        places["words"] = [at for at in tokens if at not in inner]  # padding is on the right
        places["labelled"] = [at for at in tokens if batch["labels"][at] != -100]
    for name in {step.rows, step.hidden_rows} - places.keys():  # a sampled fraction, as it was drawn
        places[name] = [divmod(place, width) for place in batch["rows"][name].tolist()]
    if own_rows is not None:
        soft = places["words" if step.kind == "tokens" and step.rows == "all" else step.rows]
        hard = places[own_rows]
        labels = [int(batch["labels"][at]) for at in hard]
    else:
        soft = sorted({row for row, _ in tokens})
        hard = [row for row in soft if _is_label(batch["labels"][row])]
        labels = [batch["labels"][row] for row in hard]
    if step.kind == "qa":
        allowed = batch["is_allowed"]
        logits, teacher_logits = (_of_allowed(output, allowed) for output in (student_output, teacher_output))
        labels = [[int(allowed[row, :place].sum()) for place in batch["labels"][row]] for row in hard]
        zero = student_output.start_logits.sum() * 0.0
    else:
        logits, teacher_logits = student_output.logits, teacher_output.logits
        zero = logits.sum() * 0.0
    terms = {
        "soft_target_kl": (sum((_soft(logits[at], teacher_logits[at], step) for at in soft), zero), len(soft)),
        "hard_label": (
            sum((_hard(logits[at], label, step) for at, label in zip(hard, labels, strict=True)), zero),
            len(hard),
        ),
    }
    s, t = student_output.hidden_states[-1], teacher_output.hidden_states[-1]
    cosines = (1 - torch.dot(s[at], t[at]) / s[at].norm() / t[at].norm() for at in places[step.hidden_rows])
    terms["hidden_cosine"] = (sum(cosines, zero), len(places[step.hidden_rows]))
    maps, teacher_maps = student_output.attentions[-1], teacher_output.attentions[-1]
    heads = maps.shape[1]
    divergences = (
        _kl(teacher_maps[row, head, query], maps[row, head, query]) / heads
        for row, query in tokens
        for head in range(heads)
    )
    terms["attention_kl"] = (sum(divergences, zero), len(tokens))
    return {name: terms[name] for name in step.weights}


def _of_allowed(output: Any, allowed: Tensor) -> list[Tensor]:
    """Return for each window the logits of start and end at allowed positions, (positions, 2)."""
    pairs = torch.stack([output.start_logits, output.end_logits], -1)
    return [logits[places] for logits, places in zip(pairs, allowed, strict=True)]


def _soft(student: Tensor, teacher: Tensor, step: Step) -> Tensor:
    if step.kind == "regression":
        return (student - teacher).square().sum()
    t = step.temperature
    if step.kind == "qa":
        pairs = zip((teacher / t).softmax(0).T, (student / t).softmax(0).T, strict=True)
        return t**2 * sum(_kl(p, q) for p, q in pairs) / 2
    if step.kind == "multilabel":
        pairs = zip((teacher / t).sigmoid(), (student / t).sigmoid(), strict=True)
        return t**2 * sum(_kl(torch.stack([p, 1 - p]), torch.stack([q, 1 - q])) for p, q in pairs)
    return t**2 * _kl((teacher / t).softmax(-1), (student / t).softmax(-1))


def _hard(logits: Tensor, label: Any, step: Step) -> Tensor:
    if step.kind == "regression":
        return (logits.squeeze() - label.double()).square()
    if step.kind == "multilabel":
        chances = [p if is_one else 1 - p for p, is_one in zip(logits.sigmoid(), label.bool(), strict=True)]
        return -torch.stack(chances).log().sum()
    if step.kind == "qa":
        return -(F.log_softmax(logits, 0)[label, [0, 1]]).sum() / 2
    return -F.log_softmax(logits, -1)[int(label)]


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Return Σ p · log(p / q) over the classes with p > 0."""
    known = p > 0
    return (p[known] * (p[known].log() - q[known].log())).sum()


def _is_label(label: Tensor) -> bool:
    return not bool(label.isnan().any()) if label.is_floating_point() else bool((label != -100).all())
