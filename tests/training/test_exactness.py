"""Every way of cutting a step up gives the gradient of the definitions: float64, one token at a time."""

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from torch import Tensor

from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.schedule import Schedule
from tests.helpers import naive, tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.training import label_set, trainer

STEPS = 3
LABELS = {
    "classification": lambda i: (i % 3, -100),
    "multilabel": lambda i: (label_set(i), [float("nan")] * 3),
    "regression": lambda i: (i * 0.7, float("nan")),
    "qa": lambda i: ([1, 1], [-100, -100]),
    "tokens": lambda i: ([], []),
}
"""Kind of task → (row → its label, and the one of a row without any); those of tokens depend on the length."""
LENIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@dataclass(frozen=True)
class Case:
    """A run of three steps at learning rate 0: its gradients are those of three places in the schedules.

    Attributes:
        lengths: tokens of each row between [CLS] and [SEP]; a row of two or three may have no masked token.
        batch, accumulation: rows of a micro-batch, micro-batches of a step.
        rows, hidden_rows: which tokens the terms look at.
        shape: of the schedules of `soft_target_kl`'s weight and temperature.
        unlabelled: every so many rows has no label; 0: all have one.
    """

    kind: str = "mlm"
    lengths: tuple[int, ...] = (4, 9, 2, 20)
    batch: int = 2
    accumulation: int = 2
    rows: Any = "all"
    hidden_rows: Any = "all"
    shape: str = "constant"
    unlabelled: int = 0
    bf16: bool = False
    seed: int = 0


def cases(**fixed: Any) -> st.SearchStrategy[Case]:
    share = st.sampled_from(["all", "masked", 0.3, 0.7])
    ragged = st.lists(st.integers(1, 28), min_size=1, max_size=14).map(tuple)
    packed = st.builds(lambda n, length: (length,) * n, st.integers(1, 12), st.integers(1, 28))
    free = {
        "kind": st.sampled_from(["mlm", "classification", "multilabel", "regression", "tokens", "qa"]),
        "lengths": st.one_of(ragged, packed),
        "batch": st.integers(1, 5),
        "accumulation": st.integers(1, 8),
        "rows": share,
        "hidden_rows": share,
        "shape": st.sampled_from(["constant", "linear", "cosine"]),
        "unlabelled": st.sampled_from([0, 1, 2, 3]),
        "bf16": st.just(False),
        "seed": st.integers(0, 5),
    }
    return st.builds(Case, **free | {name: st.just(value) for name, value in fixed.items()}).map(_sensible)


def _sensible(case: Case) -> Case:
    """Only language modelling masks tokens, and is never without a label by decree."""
    if case.kind == "mlm":
        return replace(case, unlabelled=0)
    if case.kind == "tokens":
        own = {"masked": "labelled"}
        return replace(
            case, rows=own.get(case.rows, case.rows), hidden_rows=own.get(case.hidden_rows, case.hidden_rows)
        )
    return replace(case, rows="all", hidden_rows="all" if case.hidden_rows == "masked" else case.hidden_rows)


def models(case: Case) -> tuple[Any, Any]:
    """(student, teacher)."""
    if case.kind == "mlm":
        return tiny.mlm_model(2, seed=1), tiny.mlm_model(4)
    if case.kind == "tokens":
        return tiny.tagger(2, seed=1), tiny.tagger(4)
    if case.kind == "qa":
        return tiny.reader(2, seed=1), tiny.reader(4)
    labels = 1 if case.kind == "regression" else 3
    return tiny.classifier(2, labels, seed=1), tiny.classifier(4, labels)


def data(case: Case) -> list[dict[str, Any]]:
    generator, rows = torch.Generator().manual_seed(case.seed), []
    for i, length in enumerate(case.lengths):
        words = torch.randint(5, len(tiny.VOCABULARY), (length,), generator=generator).tolist()
        row: dict[str, Any] = {"input_ids": [2, *words, 3]}
        if case.kind != "mlm":
            is_known = not case.unlabelled or i % case.unlabelled != 0
            known, unknown = LABELS[case.kind](i)
            row |= {"attention_mask": [1] * len(row["input_ids"]), "labels": known if is_known else unknown}
        if case.kind == "tokens":
            tags = [(i + place) % 3 if is_known and place % 2 == 0 else -100 for place in range(length)]
            row |= {"labels": [-100, *tags, -100], "is_word": [False, *[True] * length, False]}
        if case.kind == "qa":
            row["is_allowed"] = [i % 2 == 0, *[place >= length // 3 for place in range(length)], False]
            row["labels"] = [1 + length // 3 + i % (length - length // 3), length] if is_known else [-100, -100]
        rows.append(row)
    return rows


def run(case: Case, folder: Path, **further: Any) -> tuple[Any, Steps]:
    """The trainer's own three steps."""
    weight, temperature = (Schedule(5.0, 1.0, case.shape), Schedule(4.0, 1.0, case.shape))
    if case.shape == "constant":
        weight, temperature = Schedule(5.0), Schedule(4.0)
    terms = [
        SoftTargetKL(weight, temperature, case.rows),
        HardLabel(2.0),
        HiddenCosine(1.0, "last", case.hidden_rows),
        AttentionKL(3.0, "last"),
    ]
    steps = Steps()
    arguments = {"per_device_train_batch_size": case.batch, "gradient_accumulation_steps": case.accumulation}
    arguments |= {"max_steps": STEPS, "learning_rate": 0.0, "max_grad_norm": 0, "bf16": case.bf16, **further}
    made = trainer(folder, *models(case), terms, kind=case.kind, rows=data(case), callbacks=[steps], **arguments)
    steps.watch(made)
    made.train()
    assert len(steps.gradients) == STEPS
    return made, steps


def expected(case: Case, step: int, batches: list[dict[str, Any]]) -> dict[str, Tensor]:
    """What the definitions say of one step."""
    progress = step / (STEPS - 1)
    along = {"constant": 0.0, "linear": progress, "cosine": (1 - torch.cos(torch.tensor(progress * torch.pi))) / 2}
    at = float(along[case.shape])
    weights = {"soft_target_kl": 5 - 4 * at, "hard_label": 2.0, "hidden_cosine": 1.0, "attention_kl": 3.0}
    wanted = naive.Step(case.kind, weights, 4 - 3 * at, str(case.rows), str(case.hidden_rows))
    return naive.gradient(*models(case), batches, wanted)


def check(case: Case, tolerance: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        _, steps = run(case, Path(folder))
    for number, (found, batches) in enumerate(zip(steps.gradients, steps.batches, strict=True)):
        if case.kind == "mlm" and any(not len(batch["rows"]["masked"]) for batch in batches):
            event("a micro-batch without a masked token")
        apart = distance(found, expected(case, number, batches))
        assert apart < tolerance, f"step {number}: {apart:.2g} apart / {asdict(case)}"


@settings(LENIENT, max_examples=5)
@given(cases())
def test_any_cut_of_a_step_gives_the_gradient_of_the_definitions(case):
    """Prevents means of means, rows counted twice or lost, and schedules read at the wrong place: 1e-5 in fp32."""
    check(case, 1e-5)


@pytest.mark.integration
@settings(LENIENT, max_examples=40)
@given(cases())
def test_many_more_cuts_of_a_step(case):
    """The same, on more cases."""
    check(case, 1e-5)


@pytest.mark.integration
@settings(LENIENT, max_examples=10)
@given(cases(bf16=True))
def test_bf16_gives_it_too_within_its_rounding(case):
    """Prevents sums in half precision: 5 % of the gradient's length, at 8 bits to a number."""
    check(case, 0.05)


@pytest.mark.integration
@settings(LENIENT, max_examples=1, phases=[Phase.generate])
@given(st.lists(cases(), min_size=8, max_size=8))
def test_two_processes_give_it_too(drawn):
    """Prevents counts of one process alone, and fillers of ragged last batches that are learnt from."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "cases.json").write_text(json.dumps([asdict(case) for case in drawn]))
        forked_pair("-m", "tests.workers.exactness", folder)
        for i, case in enumerate(drawn):
            ours, theirs = (torch.load(place / f"{i}-{rank}.pt", weights_only=True) for rank in (0, 1))
            for number, found in enumerate(ours["gradients"]):
                wanted = expected(case, number, ours["batches"][number] + theirs["batches"][number])
                apart = distance(found, wanted)
                assert apart < 1e-5, f"step {number}: {apart:.2g} apart / {asdict(case)}"


def test_the_check_can_fail(tmp_path):
    """A comparison that no error disturbs would prove nothing: other tokens, weights or temperatures are seen."""
    case = Case(rows="all")
    _, steps = run(case, tmp_path)
    found, batches = steps.gradients[0], steps.batches[0]
    assert distance(found, expected(case, 0, batches)) < 1e-5
    for other in (replace(case, rows="masked"), replace(case, hidden_rows="masked")):
        assert distance(found, expected(other, 0, batches)) > 1e-3
    assert distance(found, expected(replace(case, shape="linear"), 1, batches)) > 1e-3
    assert distance(found, expected(case, 0, batches[:1])) > 1e-3
