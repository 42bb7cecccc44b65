"""Steps on queries and their documents: the gradient by the definitions, however a step is cut, caches and resumes."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distil_nlp.data.ranking import RankingCollator
from distil_nlp.evaluation.metrics import metrics_of
from distil_nlp.evaluation.predict import predict
from distil_nlp.evaluation.ranking import EVALUATOR
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.logit_mse import LogitMSE
from distil_nlp.losses.ranking import ListwiseKL, MarginMSE
from distil_nlp.objective.objective import Objective
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.training.checkpoints import last_complete_checkpoint
from tests.helpers import tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, task_rows, trainer

SIZES = (4, 1, 3, 7, 2, 4, 3, 1, 5, 2)
"""Documents of each query; one of the fourth and one of the fifth query have no label."""
GROUP = 4
LIVELY = {"initializer_range": 0.3}


def models() -> tuple[Any, Any]:
    """Return (student, teacher), whose scores differ from document to document."""
    return tiny.classifier(2, 1, seed=1, **LIVELY), tiny.classifier(4, 1, **LIVELY)


def query_rows() -> list[dict[str, Any]]:
    """Return ragged rows of queries of unlike size, with grades."""
    marks = [[(i % 3) / 2, float(query)] for query, size in enumerate(SIZES) for i in range(size)]
    marks[9][0] = marks[16][0] = math.nan
    return [row | {"labels": mark} for row, mark in zip(task_rows(len(marks)), marks, strict=True)]


def score_terms() -> list[Any]:
    return [MarginMSE(2.0), ListwiseKL(3.0, 2.0), HardLabel(0.5), LogitMSE(0.25)]


def made(folder, terms=None, **arguments: Any) -> Any:
    run = trainer(folder, *models(), terms or score_terms(), kind="ranking", rows=query_rows(), **arguments)
    run.data_collator.collate = RankingCollator(tiny.tokenizer(), group_size=GROUP)
    return run


def steps_of(folder, batch: int, accumulation: int = 1) -> Steps:
    """Return the gradients and batches of three steps at learning rate 0."""
    steps = Steps()
    run = made(
        folder, callbacks=[steps], per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation,
        learning_rate=0.0, max_grad_norm=0,
    )  # fmt: skip
    steps.watch(run)
    run.train()
    return steps


def scores(model: Any, batch: dict[str, Any]) -> Tensor:
    """Return the scores of a batch's rows that are no fillers, each text alone, without padding, in float64."""
    found = []
    for place in batch["rows"]["sequences"].tolist():
        length = int((batch["input_ids"][place] != 0).sum())
        inputs = {name: batch[name][place][None, :length] for name in ("input_ids", "token_type_ids")}
        found.append(model(**inputs).logits[0, 0])
    return torch.stack(found)


def expected(batches: Any) -> dict[str, Tensor]:
    """Return the gradient of the definitions, by loops over queries and their documents."""
    student, teacher = (copy.deepcopy(model).double().eval() for model in models())
    parts: dict[str, list[Tensor]] = {"pairs": [], "queries": [], "labelled": [], "sequences": []}
    for batch in batches:
        own, target = scores(student, batch), scores(teacher, batch).detach()
        labels = batch["labels"][batch["rows"]["sequences"]]
        parts["sequences"] += [(a - b) ** 2 for a, b in zip(own, target, strict=True)]
        for score, (grade, _) in zip(own, labels.tolist(), strict=True):
            if not math.isnan(grade):
                parts["labelled"].append(-grade * score.sigmoid().log() - (1 - grade) * (1 - score.sigmoid()).log())
        for query in sorted(set(labels[:, 1].tolist())):
            group = [i for i, (_, number) in enumerate(labels.tolist()) if number == query]
            pairs = [(i, j) for i in group for j in group if labels[i, 0] > labels[j, 0]]
            parts["pairs"] += [((own[i] - own[j]) - (target[i] - target[j])) ** 2 for i, j in pairs]
            if len(group) > 1:
                p, q = (torch.stack([one[i] / 2 for i in group]).softmax(0) for one in (target, own))
                parts["queries"].append(4 * (p * (p / q).log()).sum())
    weights = {"pairs": 2.0, "queries": 3.0, "labelled": 0.5, "sequences": 0.25}
    sum(weights[name] * torch.stack(some).mean() for name, some in parts.items()).backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("batch", "accumulation"), [(9, 1), (6, 2), (4, 3)])
def test_a_step_has_the_gradient_of_the_definitions(tmp_path, batch, accumulation):
    """Prevents padding or fillers in a loss, means of means, and pairs of two queries: ragged, accumulated steps."""
    steps = steps_of(tmp_path, batch, accumulation)
    assert len(steps.gradients) == 3
    for found, batches in zip(steps.gradients, steps.batches, strict=True):
        assert all(len(one["input_ids"]) == batch for one in batches)
        assert distance(found, expected(batches)) < 1e-5


@pytest.mark.integration
def test_two_processes_take_the_step_of_one(tmp_path):
    """Prevents counts of one process alone, and queries that are cut between two."""
    forked_pair("-m", "tests.workers.ranking", str(tmp_path / "found"))
    ours, theirs = (torch.load(tmp_path / f"found.{rank}", weights_only=True) for rank in (0, 1))
    for number, found in enumerate(ours["gradients"]):
        assert distance(found, expected(ours["batches"][number] + theirs["batches"][number])) < 1e-5


def test_an_evaluation_is_of_whole_queries(tmp_path):
    """Prevents metrics of fillers, and terms of queries that a batch of the evaluation cuts."""
    found = []
    for size in (7, 9, 40):
        run = made(
            tmp_path, eval_rows=query_rows(), compute_metrics=EVALUATOR.metrics("ranking"),
            per_device_eval_batch_size=size,
        )  # fmt: skip
        found.append({name: value for name, value in run.evaluate().items() if "_per_" not in name})
    for one in found:
        del one["eval_runtime"]
        one.pop("eval_model_preparation_time", None)
    assert found[0] == pytest.approx(found[2], rel=1e-5)
    assert found[1] == pytest.approx(found[2], rel=1e-5)
    rows = query_rows()
    outputs = predict(models()[0], "ranking", {"all": rows}, RankingCollator(tiny.tokenizer()))
    assert found[0]["eval_ndcg_at_10"] == pytest.approx(metrics_of("ranking", outputs)["ndcg_at_10"])


def all_terms() -> list[Any]:
    return [*score_terms(), HiddenCosine(1.0), AttentionKL(1.0)]


def test_a_cached_teacher_teaches_the_same(tmp_path):
    """Prevents outputs of other documents than those that an epoch has drawn, and fillers that are looked up."""
    runs = [
        made(tmp_path / name, all_terms(), cache=cache, max_steps=-1, num_train_epochs=3)
        for name, cache in (("plain", None), ("cached", CacheConfig(tmp_path / "caches", dtype="float32")))
    ]
    for run in runs:
        run.train()
    assert len(curve(runs[0])) > 6
    assert curve(runs[1]) == pytest.approx(curve(runs[0]), rel=1e-5)


def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(tmp_path):
    """Prevents documents that are drawn anew after a resume: the stop is in the second epoch."""
    ends = []
    for name, stop in (("whole", None), ("stopped", 5)):
        run = made(tmp_path / name, all_terms(), max_steps=8, callbacks=[StopAt(stop)])
        run.train()
        if stop:
            assert run.state.epoch > 1
            run = made(tmp_path / name, all_terms(), max_steps=8)
            run.train(resume_from_checkpoint=str(last_complete_checkpoint(tmp_path / name)))
        ends.append(run.detach().state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_rows_without_labels_have_no_pairs():
    """Prevents a margin between documents that nobody has judged."""
    objective = Objective([MarginMSE(), ListwiseKL()], "ranking")
    assert {term.counted_rows() for term in objective.terms} == {"pairs", "queries"}
    assert not MarginMSE.uses_unlabelled_rows
    assert ListwiseKL.uses_unlabelled_rows
