"""The benchmark measures the work that it names, and slows no baseline."""

import json
import os
import threading
from itertools import islice
from statistics import median

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from distil_nlp.benchmark import report, roofline, term_costs, trainer_steps
from distil_nlp.benchmark.distilbert_loop import reference_loss, run_distilbert_loop
from distil_nlp.benchmark.interleaved import Contender, ContenderResult, run_interleaved
from distil_nlp.benchmark.profile import kind_of
from distil_nlp.benchmark.suites import FINETUNING, MASKED, PARTS, REFERENCE, BenchmarkSettings
from distil_nlp.benchmark.task_workload import TaskWorkload, padding_fraction, workload_padding
from distil_nlp.benchmark.workload import SIZES, TEMPERATURE, WEIGHTS, Workload
from distil_nlp.cli import benchmark
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective import ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.tasks import GLUE
from tests.helpers import tiny
from tests.helpers.glue import glue_folder
from tests.helpers.messages import one_line
from tests.helpers.processes import torchrun
from tests.helpers.training import trainer

WORK = Workload(SIZES["tiny"], batch=4, length=32)


def batch_of(work=WORK):
    return work.collator()(work.rows(work.batch))


@pytest.mark.parametrize("only_masked", [False, True])
def test_the_reference_has_distilberts_loss(only_masked):
    """A baseline with another loss is another job: 5 · T² · KL + 2 · MLM + 1 · cosine, token by token in float64."""
    (student, teacher), batch = WORK.models("eager"), batch_of()
    student.double().eval(), teacher.double()
    loss = reference_loss(student, teacher, batch, only_masked)
    outputs = [model(input_ids=batch["input_ids"], output_hidden_states=True) for model in (student, teacher)]
    labels = batch["labels"].flatten()
    soft, hard, cosine, counted = 0.0, 0.0, 0.0, 0
    for i, label in enumerate(labels.tolist()):
        z, t = (output.logits.flatten(0, 1)[i] for output in outputs)
        if label >= 0 or not only_masked:
            p, q = (t / TEMPERATURE).softmax(0), (z / TEMPERATURE).softmax(0)
            soft, counted = soft + TEMPERATURE**2 * (p * (p.log() - q.log())).sum(), counted + 1
        if label >= 0:
            hard = hard - z.log_softmax(0)[label]
        h, g = (output.hidden_states[-1].flatten(0, 1)[i] for output in outputs)
        cosine = cosine + 1 - F.cosine_similarity(h, g, dim=0)
    masked = int((labels >= 0).sum())
    parts = {"soft_target_kl": soft / counted, "hard_label": hard / masked, "hidden_cosine": cosine / len(labels)}
    expected = sum(WEIGHTS[name] * value for name, value in parts.items())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("rows", ["all", "masked"])
def test_ours_has_the_loss_of_the_reference(tmp_path, rows):
    """Otherwise the two would not do the same work."""
    (student, teacher), batch = WORK.models("eager"), batch_of()
    student.eval()
    expected = reference_loss(student, teacher, batch, only_masked=rows == "masked").item()
    student, teacher = WORK.models()
    terms = [SoftTargetKL(5.0, TEMPERATURE, rows), HardLabel(2.0), HiddenCosine(1.0, "last")]
    run = trainer(tmp_path, student, teacher, terms, rows=WORK.rows(WORK.batch))
    run.data_collator.collate = WORK.collator()
    student.eval()
    loss = run.compute_loss(student, run.data_collator([{**row, "epoch": 0} for row in WORK.rows(WORK.batch)]))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_useful_arithmetic_is_that_of_the_models():
    """Utilisation above 1, or too low, by a forgotten product; counted by PyTorch in a forward of each model."""
    student, teacher = WORK.models()
    student.eval()
    ids = torch.tensor([row["input_ids"] for row in WORK.rows(WORK.batch)])
    counts = []
    for model in (teacher, student):
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(input_ids=ids)
        counts.append(counter.get_total_flops())
    assert roofline.step_flops(WORK, WORK.tokens) == counts[0] + 3 * counts[1]
    spared = (WORK.tokens - WORK.masked) * (2 * 32 * 32 + 2 * 32 * 100)
    assert roofline.step_flops(WORK, WORK.masked) == counts[0] + 3 * counts[1] - 4 * spared


def test_masked_tokens_are_as_many_as_said():
    """The head's part of the work depends on it."""
    for length in (32, 128, 512):
        work = Workload(SIZES["tiny"], batch=2, length=length)
        assert int((batch_of(work)["labels"] != -100).sum()) == work.masked


# Turns -------------------------------------------------------------------------------------------------------


def counting(gate, path, name):
    """Append the name to a file in each turn."""
    held = torch.zeros(2**18)
    while True:
        gate(name=name)
        with open(path, "a") as file:
            file.write(name)
        del held
        held = torch.zeros(2**18) + torch.ones(2**18)


def failing(gate):
    gate()
    gate()
    raise ValueError("a peer broke")


def dying(gate):
    threading.Timer(0.5, os._exit, (1,)).start()
    while True:
        gate()


def lacking(gate):
    import not_there  # noqa: F401


@pytest.mark.slow
def test_contenders_take_turns(tmp_path):
    """Prevents one contender that runs while the machine is quiet, and another while it is not."""
    path = tmp_path / "order"
    contenders = {name: Contender(counting, {"path": str(path), "name": name}) for name in "ab"}
    contenders |= {"broken": Contender(failing), "absent": Contender(lacking)}
    results = run_interleaved(contenders, rounds=2, warm_up=1, threads=1)
    assert path.read_text() == "abababab"
    for name in "ab":
        assert len(results[name].seconds) == 2
        assert results[name].extra == {"name": name}
        assert results[name].held_mib == pytest.approx(1, abs=0.3)
        assert results[name].peak_mib == pytest.approx(3, abs=0.3), "two summands and their sum"
    assert "ValueError: a peer broke" in results["broken"].problem
    assert results["absent"].problem == "not installed: not_there"


@pytest.mark.integration
def test_a_contender_that_dies_ends_no_contest(tmp_path):
    """Prevents an hour's results lost with one process that the system ended, often while it was idle."""
    path = tmp_path / "order"
    contenders = {"dying": Contender(dying), "a": Contender(counting, {"path": str(path), "name": "a"})}
    results = run_interleaved(contenders, rounds=40, warm_up=0, threads=1)
    assert results["dying"].problem == "its process ended, perhaps for want of memory"
    assert len(results["a"].seconds) == 40


def test_batches_never_end():
    """Prevents other implementations that drop out after an epoch, while the trainer goes on."""
    assert len(list(islice(Workload(SIZES["tiny"], batch=2, length=8).batches(), 70))) == 70


@pytest.mark.slow
def test_the_trainer_and_the_reference_take_turns_and_tell_their_memory():
    """Prevents a comparison in which `Trainer` runs on by itself."""
    contenders = {
        REFERENCE: Contender(run_distilbert_loop, {"work": WORK}, keep_freed_memory=False),
        MASKED: Contender(trainer_steps.run_trainer, {"work": WORK}),
        "products": Contender(roofline.run_matmuls, {"work": WORK, "head_rows": WORK.masked}),
    }
    results = run_interleaved(contenders, rounds=2, warm_up=1, threads=1)
    for name in (REFERENCE, MASKED):
        assert results[name].problem is None
        assert len(results[name].seconds) == 2
        assert results[name].peak_mib > results[name].held_mib > 0
    rates = results["products"].extra["gflops"]
    assert len(rates) == len(set(roofline.step_shapes(WORK, WORK.masked)))
    assert min(rates.values()) > 0


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::mm", "matrix products"),
        ("aten::addmm_", "matrix products"),
        ("aten::bmm", "attention"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", "attention"),
        ("aten::_softmax_backward_data", "attention"),
        ("aten::_log_softmax", "losses"),
        ("aten::bernoulli_", "dropout"),
        ("aten::native_layer_norm", "activation and norm"),
        ("aten::_fused_adamw_", "optimiser and clipping"),
        ("aten::copy_", "copies and fills"),
        ("aten::add", "other"),
    ],
)
def test_operators_are_told_apart(operator, kind):
    """Prevents batched products of attention from passing for the matrix products that the peak is measured on."""
    assert kind_of(operator) == kind


# Tasks -------------------------------------------------------------------------------------------------------


def test_the_share_of_padding_counts_filled_up_places():
    """3 + 1 tokens in 2 × 3 places, 4 in 1 × 4."""
    assert padding_fraction([3, 1, 4], 2) == pytest.approx(1 - 8 / 10)


@pytest.mark.parametrize("name", ["mrpc", pytest.param("sst2", marks=pytest.mark.slow)])
def test_little_is_padded(shared, name):
    """At most 5 % of the places of a batch of 32, as rows are grouped by length."""
    work = TaskWorkload(str(shared / "models" / "minilm-l6-h384"), str(shared / "data" / "glue"), name)
    assert workload_padding(work) <= 0.05


# The cost of each term ---------------------------------------------------------------------------------------


def test_every_term_is_measured_once_where_it_has_a_meaning():
    """Prevents a registered term that is forgotten, or that its task does not support after an hour of
    measuring."""
    groups = list(term_costs.term_groups(term_costs.MEASURED))
    of_glue = {name for name, term in TERMS.items() if {"classification", "regression"} & {*term.kinds()}}
    assert sorted(name for _, names in groups for name in names) == sorted(of_glue - {"soft_target_kl"})
    assert max(len(names) for _, names in groups) <= 5
    for task, names in groups:
        shapes = (ModelShape(depth, 32, 4, None, 64, len(GLUE[task].labels) or 1) for depth in (4, 2))
        Objective([SoftTargetKL(), *(TERMS[name]() for name in names)], GLUE[task].kind).bind(*shapes)


def test_a_term_that_no_task_has_a_meaning_for_is_left_out(monkeypatch):
    """Prevents a group that fails for a term of language modelling, and a term that is dropped without a message."""
    monkeypatch.setitem(TERMS, "words", type("Words", (HardLabel,), {"name": "words", "levels": ("token",)}))
    assert term_costs.supported_task("words") is None
    assert list(term_costs.term_groups(["words"])) == []
    assert PARTS["terms"](BenchmarkSettings(terms=("words",)), print) == {"groups": [], "left_out": ["words"]}


class _Enough(Exception):
    pass


def two_steps():
    """Return a gate that lets two steps pass."""
    calls = iter(range(3))

    def gate():
        if next(calls) == 2:
            raise _Enough

    return gate


@pytest.mark.parametrize("further", [None, "pkd"])
def test_a_step_has_the_term_that_it_is_timed_with(tmp_path, monkeypatch, further):
    """Prevents the baseline step under the name of a term: its sum is taken once a step, and the soft targets' too."""
    summed, (model, data) = [], (tmp_path / "model", tmp_path / "glue")
    tiny.classifier(4).save_pretrained(model)
    tiny.tokenizer().save_pretrained(model)
    glue_folder(data, "mrpc")
    for name in ("soft_target_kl", "pkd"):
        monkeypatch.setattr(TERMS[name], "sum", _counted(TERMS[name].sum, name, summed))
    work = TaskWorkload(str(model), str(data), "mrpc", rows=16, batch=4, length=32)
    with pytest.raises(_Enough):
        term_costs.run_with_term(two_steps(), work, further)
    assert summed == 2 * ["soft_target_kl", *([further] if further else [])]


def _counted(real, name, summed):
    def counted(self, *args):
        summed.append(name)
        return real(self, *args)

    return counted


def test_rows_of_middle_length():
    """Prevents steps that are unlike each other, or the longest alone."""
    rows = Dataset.from_dict({"length": [9, 1, 5, 4, 6, 2, 8]})
    assert term_costs.rows_of_median_length(rows, 3)["length"] == [5, 4, 6]
    assert len(term_costs.rows_of_median_length(rows, 100)) == 7


def test_costs_are_multiples_of_the_plain_step_of_the_same_group():
    """Prevents a ratio to another group's steps, and a spread that is the batches' own."""
    baseline, dear = ContenderResult([1.0, 2.0, 4.0], peak_mib=100.0), ContenderResult([1.5, 2.5, 6.0], peak_mib=130.0)
    costs = term_costs.relative_costs(
        {term_costs.SOFT_TARGETS_ONLY: baseline, "dear": dear, "broken": ContenderResult([1.0], problem="it broke")}
    )
    assert costs["dear"]["times_plain"] == 1.25
    assert costs["dear"]["quartiles"] == [1.375, 1.5], "of 1.5, 1.25 and 1.5"
    assert costs["dear"]["more_mib"] == 30.0
    assert "times_plain" not in costs["broken"]
    without = term_costs.relative_costs(
        {term_costs.SOFT_TARGETS_ONLY: ContenderResult(problem="no data"), "dear": dear}
    )
    assert "times_plain" not in without["dear"]


def test_the_table_of_costs_tells_all_terms(tmp_path):
    """Prevents a table that a failed term is missing from, or that hides the dearest among the others."""
    cost = {"quartiles": [1.1, 1.32], "more_mib": 12.0}
    dear, cheap = (result(seconds, times_plain=seconds, **cost) for seconds in (1.3, 1.0))
    first = {term_costs.SOFT_TARGETS_ONLY: result(1.0), "dear": dear, "cheap": cheap}
    second = {
        term_costs.SOFT_TARGETS_ONLY: result(2.0),
        "broken": {"seconds": [], "problem": "Traceback\nValueError: it broke"},
    }
    third = {
        term_costs.SOFT_TARGETS_ONLY: {"seconds": [], "problem": "no STS-B"},
        "lost": {"seconds": [], "problem": "no STS-B"},
    }
    groups = [{"task": "mrpc", "steps": first}, {"task": "mnli", "steps": second}, {"task": "stsb", "steps": third}]
    report.write_benchmark({"terms": {"groups": groups, "left_out": ["words"]}}, tmp_path)
    rows = [line for line in (tmp_path / "benchmark.md").read_text().splitlines() if line.startswith("|")][2:]
    assert rows == [
        "| soft targets alone | MRPC | 1.00 |  | 1 |  |",
        "| soft targets alone | MNLI | 1.00 |  | 2 |  |",
        "| cheap | MRPC | 1.00 | 1.10 to 1.32 | 1 | +12 |",
        "| dear | MRPC | 1.30 | 1.10 to 1.32 | 1.3 | +12 |",
        "| broken | MNLI | ValueError: it broke |  |  |  |",
        "| soft targets alone | STSB | no STS-B |  |  |  |",
        "| lost | STSB | no STS-B |  |  |  |",
        "| words |  | left out: no task here supports it |  |  |  |",
    ]
    assert (tmp_path / "terms.png").exists()


# Tables and plots --------------------------------------------------------------------------------------------


def result(*seconds, **more):
    return {
        "median_s": sorted(seconds)[len(seconds) // 2],
        "seconds": list(seconds),
        "peak_mib": 50.0,
        "held_mib": 20.0,
        **more,
    }


def test_tables_and_plots_come_of_the_numbers(tmp_path):
    """Prevents a benchmark that ends in a file nobody reads."""
    steps = {REFERENCE: result(6.0, 5.0, 5.5, speed_up=1.0), MASKED: result(2.0, 2.2, 2.1, speed_up=2.62)}
    steps["TextBrewer"] = {"seconds": [], "problem": "not installed: textbrewer"}
    utilisation = {MASKED: {"gflop": 476.0, "gflops": 227.0, "share": 0.65}}
    epochs = {"epochs": {FINETUNING: result(1.0, speed_up=1.0)}, "padding_share": 0.031}
    results = {
        "mlm": {"steps": steps, "utilisation": utilisation},
        "task": {"mrpc": epochs},
        "scaling": {"length": {128: steps, 256: steps}, "batch": {2: steps, 4: steps}, "depth": {4: steps, 8: steps}},
        "inference": {"1": {"teacher": result(0.02, speed_up=1.0)}},
    }
    printed = report.write_benchmark(results, tmp_path)
    assert json.loads((tmp_path / "benchmark.json").read_text())["mlm"]["steps"][MASKED]["median_s"] == 2.1
    table = (tmp_path / "benchmark.md").read_text()
    assert f"| {MASKED} | 2.1 | 2 to 2.2 | 2.62 | 50 | 30 | 65% |" in table
    assert "| TextBrewer | not installed: textbrewer |" in table
    assert "A task, an epoch: MRPC, 3.1% padding" in table
    assert MASKED in printed
    assert {path.name for path in tmp_path.glob("*.png")} == {"mlm.png", "task-mrpc.png", "scaling.png"}


def test_a_part_without_its_data_is_refused(tmp_path, capsys):
    """Prevents an hour of measuring before the missing option is noticed."""
    for part in ("task", "terms"):
        assert benchmark(["--parts", "mlm", part, "--output", str(tmp_path)]) == 2
        said = one_line(capsys.readouterr().err)
        assert f"--model, --glue: expected a model with its tokenizer and GLUE's data for the part {part}" in said
    assert benchmark(["--terms", "pkd", "soft_target_kl", "hiden_mse", "--output", str(tmp_path)]) == 2
    assert "got soft_target_kl, hiden_mse / soft_target_kl is in every step" in one_line(capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_benchmark_on_a_tiny_model(tmp_path, capsys, shared):
    """Every part runs from the command line to its tables."""
    model, glue = str(shared / "models" / "minilm-l6-h384"), str(shared / "data" / "glue")
    parts = ["mlm", "options", "attention", "task", "terms", "scaling", "inference"]
    assert benchmark(["--parts", *parts, "--size", "tiny", "--batch", "4", "--length", "32", "--rounds", "1",
                      "--terms", "pkd", "dist_inter",
                      "--model", model, "--glue", glue, "--output", str(tmp_path)]) == 0  # fmt: skip
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(tmp_path / "benchmark.json")
    results = json.loads((tmp_path / "benchmark.json").read_text())
    assert set(results) == {"settings", "environment", *parts}
    for name, step in results["mlm"]["steps"].items():
        assert step.get("problem") is None or name == "TextBrewer", step["problem"]
    assert 0 < results["mlm"]["utilisation"][MASKED]["share"] < 1
    assert [list(group["steps"]) for group in results["terms"]["groups"]] == [
        [term_costs.SOFT_TARGETS_ONLY, "pkd"],
        [term_costs.SOFT_TARGETS_ONLY, "dist_inter"],
    ]
    assert all(cost["times_plain"] > 0 for group in results["terms"]["groups"] for cost in group["steps"].values())
    assert glue not in json.dumps(results)


@pytest.mark.integration
def test_what_processes_tell_each_other_is_the_gradient(tmp_path, capsys):
    """Prevents a figure of bytes that leaves a bucket out, and a part that measures one process talking to itself."""
    assert benchmark(["--parts", "communication", "--output", str(tmp_path)]) == 2
    assert "torchrun --nproc_per_node 2" in capsys.readouterr().err
    options = ["--size", "tiny", "--rounds", "2", "--threads", "1", "--output", str(tmp_path)]
    printed = torchrun("scripts/benchmark.py", "--parts", "communication", *options)
    assert "step of 4 micro-batches" in printed
    measured = json.loads((tmp_path / "benchmark.json").read_text())["communication"]
    student, _ = WORK.models()
    assert measured["processes"] == 2
    assert measured["bytes"] == 4 * sum(parameter.numel() for parameter in student.parameters())
    assert [len(measured["steps_s"][count]) for count in ("1", "4")] == [2, 2]
    assert measured["micro_batch_s"] + measured["besides_s"] == pytest.approx(median(measured["steps_s"]["1"]))


def test_settings_make_the_work():
    """Prevents a size, batch or length that is named and not used."""
    work = BenchmarkSettings(size="mini", batch=2, length=64).work(length=256)
    assert (work.size.width, work.batch, work.length) == (384, 2, 256)
