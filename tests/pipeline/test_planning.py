"""Plans: what a run will take, beside what it took."""

import json

import numpy as np
import pytest
from transformers import TrainingArguments

from distil_nlp.cli import main
from distil_nlp.data.sampling import training_order
from distil_nlp.errors import UserError
from distil_nlp.pipeline import publication
from distil_nlp.pipeline.planning.accelerators import ACCELERATORS, accelerator_named
from distil_nlp.pipeline.planning.advice import advice_of
from distil_nlp.pipeline.planning.basis import Basis
from distil_nlp.pipeline.planning.batches import plan_batches
from distil_nlp.pipeline.planning.curve import CostCurve
from distil_nlp.pipeline.planning.cutting import trial_steps
from distil_nlp.pipeline.planning.lines import stage_table
from distil_nlp.pipeline.planning.memory import TrainingMemory, activations_of
from distil_nlp.pipeline.planning.plan_recipe import plan_recipe
from distil_nlp.pipeline.planning.stage import DiskUse, PlannedStage, RunCosts
from distil_nlp.recipe import load_recipe
from distil_nlp.study.costs import plan_study
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

H100 = Basis(accelerator_named("h100"))
SHORT = ("training.max_steps=3", "student.num_layers=1")


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch):
    """Reports take seconds."""
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def planned(place, *overrides, basis=H100):
    file, *given = place.command(*overrides)
    return plan_recipe(load_recipe(file, given), "tiny", basis)


def stage(costs, name):
    (found,) = [one for one in costs.stages if one.name == name and one.run is None]
    return found


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.num_train_epochs=2"],
        ["training.num_train_epochs=5", "training.gradient_accumulation_steps=4"],
        ["training.max_steps=4", "training.train_sampling_strategy=random"],
        ["training.train_sampling_strategy=sequential", "training.per_device_train_batch_size=5"],
        ["training.dataloader_drop_last=true", "training.per_device_train_batch_size=5"],
    ],
)
def test_steps_and_tokens_are_those_of_the_run(place, overrides):
    """Prevents a plan by means of lengths, or by another number of steps than Trainer takes."""
    own = stage(planned(place, *overrides), "distilling")
    assert place.run(*overrides) == 0
    training = place.results["training"]
    assert (own.steps, own.tokens) == (training["steps"], training["tokens"])


def test_operations_are_those_of_the_run_where_rows_are_alike(place):
    """Prevents operations that are counted in another way than a run counts them."""
    place.texts = [" ".join((["the", "cat", "sat", "on"] * 3)[i % 3 : i % 3 + 6]) for i in range(24)]
    place.classes()
    own = stage(planned(place, "training.num_train_epochs=2"), "distilling")
    assert place.run("training.num_train_epochs=2") == 0
    assert own.flops == pytest.approx(place.results["training"]["flops"], rel=1e-6)


def test_operations_of_unlike_rows_differ_by_padding_alone(place):
    """Prevents a count that is off by more than the padding, which a run takes from its first micro-batch."""
    own = stage(planned(place, "training.num_train_epochs=2"), "distilling")
    assert place.run("training.num_train_epochs=2") == 0
    assert own.flops == pytest.approx(place.results["training"]["flops"], rel=0.2)


def test_a_plain_run_has_all_its_stages(place):
    """Prevents a plan that ends with the training."""
    costs = planned(place, *SHORT, "evaluation.efficiency=quick", basis=Basis())
    assert [one.name for one in costs.stages] == [
        "loading rows and models", "scoring the teacher", "distilling", "scoring students", "measuring time and memory",
        "comparing layers", "report and card",
    ]  # fmt: skip
    assert costs.memory.total > costs.memory.weights > 0
    assert costs.memory.optimizer == pytest.approx(2 * costs.memory.gradients, rel=0.01)
    assert costs.disk.checkpoints > costs.disk.models > 0
    assert not place.out.exists()


def test_seeds_and_baselines_are_counted(place):
    """Prevents a plan for one student of a run that trains six."""
    place.teacher(tiny.mlm_model(4))
    costs = planned(
        place, *SHORT, "evaluation.seeds=2", "evaluation.baselines=[no_distillation,random_init,copied_only]",
        "teacher.finetune={num_train_epochs: 2}", "teacher.reseed=true",
    )  # fmt: skip
    trained = {one.name: (one.kind, one.times, one.steps) for one in costs.stages if one.steps is not None}
    assert trained == {
        "fine-tuning the teacher": ("teacher", 2, 12),
        "distilling": ("student", 2, 3),
        "no distillation": ("baseline", 2, 3),
        "random init": ("baseline", 2, 3),
    }
    assert stage(costs, "scoring students").times == 7
    assert costs.steps == 2 * (12 + 3 * 3)


def test_a_student_that_is_cut_takes_what_comes_before(place):
    """Prevents a plan without the search for a shape, or one that does not say of which shape it is."""
    cut = planned(place, *SHORT, "student.pruning={feed_forward: 0.5, rows: 8}", "evaluation.seeds=2", basis=Basis())
    names = [one.name for one in cut.stages if one.kind == "cutting"]
    assert names == ["importance of the teacher's parts", "repairing the student"]
    assert stage(cut, names[1]).times == 2
    assert min(stage(cut, name).seconds for name in names) > 0
    searched = ("student.num_layers=null", "student.budget={parameters: 0.5, tries: 4, steps: 10}")
    budget = planned(place, *SHORT, *searched, basis=Basis())
    assert stage(budget, "trying shapes").times == 6
    assert trial_steps(4, 10) == (4 * 10 + 2 * 20, 6)
    assert "searched for" in budget.advice[0]
    assert not [one for one in planned(place, *SHORT).stages if one.kind == "cutting"]


def test_a_cache_takes_the_teacher_out_of_the_steps(place):
    """Prevents a plan of the teacher's forward in every epoch, or of no cache on the disk."""
    without = planned(place, *SHORT, basis=Basis())
    costs = planned(place, *SHORT, f"teacher.cache.folder={place.folder / 'caches'}", basis=Basis())
    assert stage(costs, "filling the teacher's cache").tokens == sum(map(len, tokens_of(place)))
    assert "teacher" in stage(without, "distilling").parts
    assert "teacher" not in stage(costs, "distilling").parts
    assert stage(costs, "distilling").flops < stage(without, "distilling").flops
    assert costs.disk.caches > 0
    assert not (place.folder / "caches").exists()


def tokens_of(place):
    return [tiny.tokenizer()(text, truncation=True, max_length=32)["input_ids"] for text in place.texts]


@pytest.mark.parametrize(
    ("overrides", "links"),
    [
        (["student.generations=3"], ["generation 1", "generation 2"]),
        (["teacher.assistants=[{num_layers: 3}, {num_layers: 2}]"], ["assistant of 3 layers", "assistant of 2 layers"]),
    ],
)
def test_students_that_teach_come_first(place, overrides, links):
    """Prevents a plan that leaves out the longest parts."""
    costs = planned(place, *SHORT, *overrides)
    trained = [one for one in costs.stages if one.kind == "link" and one.name == "distilling"]
    assert [one.run for one in trained] == links
    assert all(one.steps == 3 and one.flops > 0 and one.seconds > 0 for one in trained)
    assert not list(place.folder.glob("teachers*"))


def test_equal_compute_takes_as_many_operations(place):
    """Prevents a plan of the last baseline by the steps of the student."""
    overrides = (*SHORT, "teacher.assistants=[{num_layers: 3}]", "evaluation.baselines=[equal_compute]")
    own = stage(planned(place, *overrides), "equal compute")
    assert place.run(*overrides) == 0
    compute = place.results["schemes"]["compute"]
    assert own.steps == pytest.approx(compute["equal_compute"]["steps"], abs=1)


def test_finished_links_take_no_time(place):
    """Prevents a plan of what an earlier run has done."""
    overrides = (*SHORT, "teacher.assistants=[{num_layers: 3}]")
    assert place.run(*overrides) == 0
    costs = planned(place, *overrides, "run.overwrite=true")
    done = [one for one in costs.stages if one.kind == "link"]
    assert done
    assert all(one.is_done and one.seconds == 0 for one in done)


def test_a_study_has_the_stages_of_every_run(place):
    """Prevents a plan of a study's first run, or of a teacher that is trained in each."""
    place.teacher(tiny.mlm_model(4))
    recipe = place.command()[0]
    file = place.folder / "study.yaml"
    file.write_text(
        f"recipe: {recipe}\nseeds: 2\nalways: {{soft_target_kl: {{}}}}\n"
        "methods: {plain: {}, cosine: {hidden_cosine: {layers: last}}}\n"
    )
    overrides = [*SHORT, "teacher.finetune={num_train_epochs: 1}"]
    costs = plan_study(file, place.folder / "study", overrides, H100)
    trained = [(one.run, one.name, one.times, one.is_done) for one in costs.stages if one.steps is not None]
    assert trained == [
        ("plain on classification", "fine-tuning the teacher", 1, False),
        ("plain on classification", "distilling", 2, False),
        ("cosine on classification", "fine-tuning the teacher", 1, True),
        ("cosine on classification", "distilling", 2, False),
    ]
    assert not (place.folder / "study").exists()


def test_the_command_prints_a_table_and_json(place, capsys):
    """Prevents JSON with other lines in between, and a table without its sum."""
    command = place.command(*SHORT)
    assert main(["plan", *command, "--accelerator", "a100", "--price-per-hour", "2", "--currency", "EUR"]) == 0
    said = capsys.readouterr().out
    for words in ("distilling", "together", "NVIDIA A100", "kWh at 400 W", "2 EUR an hour", "weights", "checkpoints"):
        assert words in said
    assert "float32, which is several times slower" in one_line(said)
    assert main(["plan", *command, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["totals"]["steps"] == 3
    assert plan["totals"]["seconds"] == pytest.approx(sum(one["seconds"] for one in plan["stages"]))
    assert plan["totals"]["kwh"] is plan["totals"]["price"] is None
    assert main(["plan", *command, "--json", "--watts", "100"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["totals"]["kwh"] == pytest.approx(plan["totals"]["seconds"] * 100 / 3.6e6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--accelerator", "h1000"], "--accelerator: expected one of h100, h200"),
        (["--utilization", "0.4"], "name one with --accelerator"),
        (["--accelerator", "h100", "--utilization", "40"], "expected a number above 0, up to 1 / got 40"),
        (["--processes", "0"], "expected a whole number above 0"),
        (["--price-per-hour", "-1"], "expected a number above 0"),
        (["data.label_column=nonsense"], "data.label_column: expected a column 'nonsense'"),
    ],
)
def test_mistakes_are_told_in_words(place, capsys, options, message):
    """Prevents a traceback, or a plan of something else than was asked for."""
    assert code_of(["plan", *place.command(), *options]) == 2
    assert message in one_line(capsys.readouterr().err)


def code_of(command):
    try:
        return main(command)
    except SystemExit as ending:  # of argparse
        return ending.code


# Arithmetic --------------------------------------------------------------------------------------------------


def test_an_accelerator_shares_the_work_and_costs_by_the_hour():
    """Prevents hours, energy and money that do not follow from the figures that are shown."""
    basis = Basis(ACCELERATORS["h100"], utilization=0.5, processes=4, price_per_hour=3.0)
    seconds = basis.seconds(None, 989e12 * 0.5 * 4 * 3600)
    assert seconds == pytest.approx(3600)
    assert basis.kilowatt_hours(seconds) == pytest.approx(4 * 0.7)
    assert basis.price(seconds) == pytest.approx(12.0)
    assert Basis().seconds(10.0, 1e30) == 10.0
    assert Basis().kilowatt_hours(10.0) is None
    assert Basis().price(10.0) is None


def test_an_unknown_accelerator_has_a_hint():
    """Prevents a refusal that leaves people guessing."""
    with pytest.raises(UserError, match="did you mean a100"):
        accelerator_named("A10O")


def test_a_curve_goes_through_what_was_measured():
    """Prevents a median where long batches cost more, and costs below 0 between and beyond the measured widths."""
    widths = np.array([8, 16, 32, 64])
    curve = CostCurve.fit(widths, 3 + 0.5 * widths + 0.01 * widths**2)
    assert curve.total(np.array([24, 128])) == pytest.approx(3 * 2 + 0.5 * 152 + 0.01 * (24**2 + 128**2))
    assert CostCurve.fit([32, 32], [2.0, 4.0]).total(np.array([32] * 10)) == pytest.approx(30)
    falling = CostCurve.fit([8, 16, 32], [3.0, 2.0, 1.0])
    assert min(falling.fixed, falling.linear, falling.quadratic) >= 0


def test_batches_are_those_of_several_processes(tmp_path):
    """Prevents steps of one process in a plan for several."""
    from datasets import Dataset

    rows = Dataset.from_dict(
        {"input_ids": [[1] * (1 + i % 7) for i in range(22)], "length": [1 + i % 7 for i in range(22)]}
    )
    args = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=2, num_train_epochs=2, train_sampling_strategy="group_by_length",
        use_cpu=True,
    )  # fmt: skip
    alone, shared = plan_batches(rows, args, None, 8), plan_batches(rows, args, None, 8, processes=3)
    assert (alone.steps, shared.steps) == (22, 8)
    assert alone.tokens == shared.tokens == 2 * sum(rows["length"])
    order = training_order(rows, args, 3)(0)
    assert shared.widths[0] == max(rows["length"][i] for i in order[:2])
    assert len(shared.widths) == 24


def test_gradients_are_counted_once():
    """Prevents a peak that has the gradients of an earlier micro-batch twice, or not at all."""
    assert activations_of(100, 30, accumulates=False) == 70
    assert activations_of(100, 30, accumulates=True) == 100
    assert TrainingMemory(1, 2, 3, 4, 5).total == 15


def costs_of(*stages):
    return RunCosts(stages, TrainingMemory(1, 1, 2, 1, 90 * 10**9), "distilling", DiskUse(), 0)


def test_advice_names_what_takes_most(place):
    """Prevents advice in no order, or on what takes little."""
    file, *given = place.command()
    recipe = load_recipe(file, given)
    student = PlannedStage(
        "distilling",
        "student",
        60,
        steps=1,
        tokens=1,
        parts={"steps": 60, "teacher": 40},
        terms={"attention_kl": 12, "hard_label": 1},
    )
    baseline = PlannedStage("no distillation", "baseline", 35, steps=1, tokens=1)
    report = PlannedStage("report and card", "report", 5)
    advice = advice_of(costs_of(student, baseline, report), recipe, Basis())
    assert [text.partition(" take")[0] for text in advice] == ["the teacher's forward", "baselines", "attention_kl"]
    assert "40" in advice[0]
    assert "teacher.cache={}" in advice[0]
    assert advice_of(costs_of(report), recipe, Basis()) == []
    assert "lower training.per_device_train_batch_size" in advice_of(costs_of(student), recipe, H100)[0]
    short = PlannedStage("distilling", "student", 0.5, steps=100, tokens=1, parts={"steps": 0.5})
    assert advice_of(costs_of(short), recipe, H100)[0].startswith("a step would take 5.0 ms by these figures")
    assert not [text for text in advice_of(costs_of(short), recipe, Basis()) if "by these figures" in text]


def test_a_stage_that_is_done_says_so():
    """Prevents a share of a time that nobody waits for."""
    done = PlannedStage("fine-tuning the teacher", "teacher", 0.0, steps=10, tokens=5, is_done=True)
    assert "done" in stage_table(costs_of(done))
