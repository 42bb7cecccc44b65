"""Latency: what is timed are the rows as they are served, in turn, in bounded time, and the figures are theirs."""

import numpy as np
import pytest
import torch
from transformers import BertForSequenceClassification

from distil_nlp.data import MaskingCollator, TaskCollator
from distil_nlp.evaluation import latency
from distil_nlp.evaluation.efficiency import measure_efficiency
from distil_nlp.evaluation.latency import PLANS, LatencyPlan, measure_latency
from tests.helpers import tiny, training

CPU = torch.device("cpu")


def batch(size, length=8):
    return {"input_ids": torch.ones(size, length), "attention_mask": torch.ones(size, length)}


SOURCES = {"data": lambda size: [batch(size, 4), batch(size, 6)], "max_length": lambda size: [batch(size)]}


@pytest.fixture
def clock(monkeypatch):
    """A clock that a model moves: (model, seconds) of each forward, in order; none of them is waited for."""
    now = [0.0]
    monkeypatch.setattr(latency, "timer", lambda: now[0])
    log = []

    def model(name, seconds):
        def forward(inputs):
            own = seconds(len([one for one, *_ in log if one == name])) if callable(seconds) else seconds
            now[0] += own
            log.append((name, *inputs["input_ids"].shape))

        return forward

    return model, log


def once(**changes):
    return LatencyPlan(**({"batch_sizes": (4,), "lengths": ("data",), "forwards": (6, 6), "warm_up": 0} | changes))


# Figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_forwards(clock):
    """Prevents percentiles in seconds, of another model, or with the warm-up in them; rates of other rows."""
    model, _ = clock
    models = {"teacher": model("teacher", lambda n: 9.0 if n < 2 else 0.1 * (n - 1)), "student": model("student", 0.05)}
    (found,), left_out = measure_latency(models, SOURCES, once(warm_up=2), CPU)
    times = 100.0 * np.arange(1, 7)
    assert found["models"]["teacher"] == {
        **{f"p{q}": pytest.approx(np.percentile(times, q), abs=1e-3) for q in (50, 90, 99)},
        "rows_per_second": pytest.approx(4 * 6 / 2.1, abs=1e-2),
        "forwards": 6,
        "jitter": pytest.approx(np.percentile([1 / 3, 1, 5 / 3, 2 / 4, 1, 6 / 4], 95), abs=1e-3),
    }
    assert found["models"]["student"]["p50"] == pytest.approx(50)
    assert (found["batch_size"], found["lengths"], found["tokens"], left_out) == (4, "data", 5.0, 0)


def test_models_take_turns(clock):
    """Prevents a speed-up that is the machine's: one model measured in a quiet minute, the other in a busy one."""
    model, log = clock
    measure_latency({name: model(name, 0.1) for name in "ab"}, SOURCES, once(forwards=(3, 3)), CPU)
    assert log == [("a", 4, 4), ("b", 4, 4), ("a", 4, 6), ("b", 4, 6), ("a", 4, 4), ("b", 4, 4)]


def test_jitter_is_not_of_lengths(clock):
    """Prevents a machine that is called busy because texts differ in length; nothing is said of what was timed once."""
    model, _ = clock
    uneven = model("a", lambda n: (0.01, 0.5)[n % 2])
    (found,), _ = measure_latency({"a": uneven}, SOURCES, once(forwards=(8, 8)), CPU)
    assert found["models"]["a"]["jitter"] == 1
    (found,), _ = measure_latency({"a": uneven}, SOURCES, once(forwards=(4, 4)), CPU)
    assert "jitter" not in found["models"]["a"]


# How much is measured -----------------------------------------------------------------------------------------------


def test_settings_of_the_plans(monkeypatch):
    """Prevents a full measurement without one thread or the longest inputs, and a quick one that takes minutes."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    full = [(s.batch_size, s.lengths, s.threads) for s in PLANS["full"].settings(SOURCES, CPU)]
    assert full[:3] == [(size, "data", 4) for size in (1, 8, 32)]
    assert len(full) == 12
    assert set(full) == {(b, how, n) for b in (1, 8, 32) for how in ("data", "max_length") for n in (4, 1)}
    quick = [(s.batch_size, s.lengths, s.threads) for s in PLANS["quick"].settings(SOURCES, CPU)]
    assert quick == [(1, "data", 4), (32, "data", 4)]
    assert [s.threads for s in PLANS["quick"].settings(SOURCES, torch.device("cuda"))] == [None, None]
    assert len(PLANS["full"].settings(SOURCES, torch.device("cuda"))) == 6
    assert {s.lengths for s in PLANS["quick"].settings(["max_length"], CPU)} == {"max_length"}
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert {s.threads for s in PLANS["full"].settings(SOURCES, CPU)} == {1}


def test_time_is_bounded(clock):
    """Prevents minutes of timing of a slow model: settings share the time, and those that have none are left out."""
    model, log = clock
    plan = once(batch_sizes=(1, 8, 32), forwards=(2, 50), seconds=10)
    measured, left_out = measure_latency({"a": model("a", 2.0)}, SOURCES, plan, CPU)
    assert [setting["models"]["a"]["forwards"] for setting in measured] == [2, 2, 2]
    assert (len(log), left_out) == (6, 0)
    measured, left_out = measure_latency({"a": model("b", 30.0)}, SOURCES, plan, CPU)
    assert [setting["models"]["a"]["forwards"] for setting in measured] == [2]
    assert left_out == 2


@pytest.mark.parametrize(("spread", "expected"), [(0.0, 20), (0.01, 20), (0.5, 60)])
def test_a_median_that_is_known_is_enough(clock, spread, expected):
    """Prevents a minute of forwards for a figure that is known after a second, and a stop while it still moves."""
    model, _ = clock
    noisy = model("a", lambda n: 0.01 * (1 + spread * (n * 7 % 11) / 11))
    (found,), _ = measure_latency({"a": noisy}, SOURCES, once(forwards=(2, 60)), CPU)
    assert found["models"]["a"]["forwards"] == expected


def test_threads_are_put_back(monkeypatch):
    """Prevents a run that goes on with one thread."""
    monkeypatch.setattr(latency, "_thread_counts", lambda *_: [2, 1])
    seen, before = [], torch.get_num_threads()

    def model(inputs):
        seen.append(torch.get_num_threads())

    measure_latency({"a": model}, SOURCES, once(forwards=(1, 1)), CPU)
    assert seen == [2, 1]
    with pytest.raises(ZeroDivisionError):
        measure_latency({"a": lambda inputs: 1 / 0}, SOURCES, once(forwards=(1, 1)), CPU)
    assert torch.get_num_threads() == before


# The data's own rows ------------------------------------------------------------------------------------------------


def served(monkeypatch, rows, collator, models, plan, max_length=64):
    """The inputs of all timed forwards of BERT classifiers: (layers, rows, tokens, columns)."""
    seen, forward = [], BertForSequenceClassification.forward

    def watched(self, input_ids, **inputs):
        if torch.is_inference_mode_enabled():
            seen.append((self.config.num_hidden_layers, *input_ids.shape, frozenset(inputs)))
        return forward(self, input_ids, **inputs)

    monkeypatch.setattr(BertForSequenceClassification, "forward", watched)
    monkeypatch.setattr("distil_nlp.evaluation.efficiency.forward_arguments", lambda model: ARGUMENTS)
    found = measure_efficiency(models, rows, collator, plan=plan, max_length=max_length, device="cpu")
    return found["efficiency"]["latency"], seen


ARGUMENTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})


def test_rows_are_timed_as_they_are_served(monkeypatch):
    """Prevents padding that no service has, rows of the beginning alone, and labels that reach a forward."""
    rows = training.task_rows(40)
    models = {"teacher": tiny.classifier(2), "student": tiny.classifier(1)}
    plan = LatencyPlan((1, 8), forwards=(32, 32), warm_up=0, memory=False)
    collator = TaskCollator(tiny.tokenizer(), "classification")
    found, seen = served(monkeypatch, rows, collator, models, plan)
    assert [(s["batch_size"], s["lengths"]) for s in found] == [
        (1, "data"), (8, "data"), (1, "max_length"), (8, "max_length"),
    ]  # fmt: skip
    assert {columns for *_, columns in seen} >= {frozenset({"attention_mask", "token_type_ids"})}
    assert not any("labels" in columns for *_, columns in seen)
    lengths = [tokens for layers, size, tokens, columns in seen[:64] if layers == 1]
    own = {len(row["input_ids"]) for row in rows}
    assert set(lengths) <= own
    assert len(set(lengths)) > 10
    assert found[0]["tokens"] == pytest.approx(np.mean(lengths), abs=0.05)
    assert max(tokens for _, size, tokens, _ in seen[64:128]) <= max(own)
    assert {tokens for _, _, tokens, _ in seen[128:]} == {64}


@pytest.mark.parametrize(("size", "batches"), [(1, 12), (4, 3), (8, 3)])
def test_batches_come_again(clock, size, batches):
    """Prevents a batch for each forward, after which nobody knows whether the machine or the texts were uneven."""
    model, log = clock
    source = {"data": lambda size: [batch(size, 4 + i) for i in range(40)]}
    measure_latency({"a": model("a", 0.1)}, source, once(batch_sizes=(size,), forwards=(40, 40), rows=12), CPU)
    assert len({tokens for *_, tokens in log}) == batches


def test_few_rows_fill_a_batch(monkeypatch):
    """Prevents a batch of 32 that is one of three, and no figure for a small split."""
    models = {"teacher": tiny.classifier(2), "student": tiny.classifier(1)}
    plan = LatencyPlan((32,), ("data",), forwards=(1, 1), warm_up=0, memory=False)
    collator = TaskCollator(tiny.tokenizer(), "classification")
    _, seen = served(monkeypatch, training.task_rows(3), collator, models, plan)
    assert [(layers, size) for layers, size, *_ in seen] == [(2, 32), (1, 32)]


def test_blocks_are_timed_once():
    """Prevents the same figures twice for text, whose rows are all of the longest length."""
    rows = [{"input_ids": [2, *[7] * 14, 3]} for _ in range(4)]
    models = {"teacher": tiny.mlm_model(2), "student": tiny.mlm_model(1)}
    found = measure_efficiency(
        models, rows, MaskingCollator(tiny.tokenizer()), plan=PLANS["quick"], max_length=16, device="cpu"
    )
    assert [setting["lengths"] for setting in found["efficiency"]["latency"]] == ["max_length"] * 2
    assert "peak_memory_mib" not in found["teacher"]
