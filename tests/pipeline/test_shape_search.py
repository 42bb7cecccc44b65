"""The search for a shape under a budget."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.pruning import Importance
from distil_nlp.models.pruning.shapes import Shape, all_shapes, costs, largest, lost_importance, model_of, shape_of
from distil_nlp.pipeline import shape_search
from distil_nlp.pipeline.outputs import output_distance
from distil_nlp.pipeline.pruning import StudentPruner, _warmup_share
from distil_nlp.pipeline.shape_search import search_shape
from distil_nlp.pipeline.students import StudentRun
from distil_nlp.recipe.sections import BudgetSection
from distil_nlp.tasks import KINDS
from distil_nlp.training.finite import NotFiniteError
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.processes import forked_pair
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration


def importance(model, seed=0):
    torch.manual_seed(seed)
    config = model.config
    depth, heads = config.num_hidden_layers, config.num_attention_heads
    sizes = {"layers": (depth,), "heads": (depth, heads), "units": (depth, config.intermediate_size)}
    return Importance(**{name: torch.rand(size) for name, size in sizes.items()}, width=torch.rand(config.hidden_size))


def test_parameters_of_all_shapes_are_those_of_models():
    """Prevents costs that are extrapolated wrongly."""
    model = tiny.classifier(3)
    shapes = [Shape(1, 2, 32), Shape(2, 2, 32), Shape(3, 4, 64), Shape(2, 1, 8)]
    found = costs(model, shapes, lambda one: float(one.num_parameters()), 1e9)
    assert {shape: model_of(model, shape).num_parameters() for shape in shapes} == found
    assert found[shape_of(model.config)] == model.num_parameters()


def test_what_a_shape_loses_is_the_sum_of_what_it_lacks():
    """Prevents parts of left out layers from being counted twice."""
    model = tiny.classifier(2)
    scores = importance(model)
    assert lost_importance(scores, shape_of(model.config)) == 0
    kept = int(scores.layers.argmax())
    shape = Shape(1, 2, 40)
    expected = scores.layers[1 - kept] + scores.heads[kept].sort().values[:2].sum()
    expected += scores.units[kept].sort().values[:24].sum() + scores.width.sort().values[:16].sum()
    assert lost_importance(scores, shape) == pytest.approx(float(expected), rel=1e-5)


def test_shapes_that_could_grow_are_left_out():
    """Prevents trials of shapes that are within others which fit too."""
    shapes = [Shape(1, 4, 8), Shape(2, 2, 8), Shape(1, 2, 8), Shape(2, 2, 16)]
    assert set(largest(shapes)) == {Shape(1, 4, 8), Shape(2, 2, 16)}


@pytest.mark.parametrize("name", ["parameters", "flops"])
def test_the_shape_found_fits_and_is_the_best_of_its_trials(name):
    """Prevents a shape above the budget, and rounds that do not halve."""
    model, asked = tiny.classifier(3), []

    def trial(shape, steps):
        asked.append((shape, steps))
        return abs(shape.units - 32) + shape.layers / 10

    budget = BudgetSection(**{name: 0.5}, tries=4, steps=10, length=16)
    found = search_shape(budget, model, importance(model), trial)
    assert [steps for _, steps in asked] == [10] * 4 + [20] * 2
    first = {shape for shape, steps in asked if steps == 10}
    best = min(first, key=lambda shape: abs(shape.units - 32) + shape.layers / 10)
    assert found["chosen"]["units"] == best.units
    assert found["chosen"]["cost"] <= found["budget"]["limit"] < found["teacher_cost"]
    assert found["shapes"] == len(all_shapes(shape_of(model.config)))
    lost = [one["lost"] for one in found["candidates"]]
    assert lost == sorted(lost)


def test_a_shape_that_diverges_loses():
    """Prevents NaN that wins because it is not above any other, and a run that ends for one bad shape."""
    model, tried = tiny.classifier(3), []

    def trial(shape, steps):
        tried.append(shape)
        if len(tried) == 1:
            return float("nan")
        if len(tried) == 2:
            raise NotFiniteError(None, "a finite loss", "NaN")
        return 0.5

    budget = BudgetSection(parameters=0.5, tries=3, steps=1)
    found = search_shape(budget, model, importance(model), trial)
    assert Shape(*(found["chosen"][name] for name in ("layers", "heads", "units"))) == tried[2]

    def broken(shape, steps):
        raise NotFiniteError(None, "a finite loss", "NaN")

    with pytest.raises(NotFiniteError):
        search_shape(budget, model, importance(model), broken)


@pytest.mark.parametrize(("warmup", "share"), [(0.06, 0.06), (40, 0.1), (1000, 0.99)])
def test_trials_warm_up_for_the_same_share(tmp_path, warmup, share):
    """Prevents trials at a fortieth of the learning rate, where the recipe counts its warm-up in steps."""
    args = TrainingArguments(str(tmp_path), max_steps=400, warmup_steps=warmup, use_cpu=True)
    assert _warmup_share(args, [], None) == pytest.approx(share)


def test_a_fraction_is_of_the_teacher_with_its_own_vocabulary():
    """Prevents a limit that shrinks with the student's vocabulary."""
    teacher, whole = tiny.classifier(3, vocab_size=2000), tiny.classifier(3, vocab_size=100)
    found = search_shape(BudgetSection(parameters=0.5, tries=1), whole, importance(whole), lambda *_: 0.0, teacher)
    assert found["teacher_cost"] == teacher.num_parameters()
    assert found["budget"]["limit"] == 0.5 * teacher.num_parameters()
    assert found["chosen"]["cost"] == whole.num_parameters() < found["budget"]["limit"]


def test_a_length_beyond_the_positions_is_refused():
    """Prevents an index error in the middle of measuring, an assertion of the device's on a GPU."""
    model = tiny.classifier(2)
    with pytest.raises(UserError, match=r"student.budget.length: expected at most \d+"):
        search_shape(BudgetSection(flops=0.5, length=10_000), model, importance(model), lambda *_: 0.0)


def test_a_latency_is_measured_beside_the_teacher():
    """Prevents times of different moments from being compared: no shape is above the whole, and the limit is told."""
    model = tiny.classifier(3, num_attention_heads=1, intermediate_size=8).eval()
    budget = BudgetSection(latency=1.0, tries=1, length=16)
    found = search_shape(budget, model, importance(model), lambda *_: 0.0)
    assert found["fitting"] == found["shapes"]
    assert found["chosen"]["layers"] == 3
    assert found["budget"]["unit"] == "ms"
    assert found["teacher_cost"] > 0


def test_a_shape_that_does_not_keep_its_promise_is_passed_over(monkeypatch):
    """Prevents a student above its budget, where two depths did not tell the cost of others."""
    model = tiny.classifier(3)
    monkeypatch.setattr(
        shape_search, "forward_flops", lambda one, _: one.num_parameters() * one.config.num_hidden_layers**2
    )
    limit = 0.3 * model.num_parameters() * 9
    found = search_shape(BudgetSection(flops=0.3, tries=1, length=16), model, importance(model), lambda *_: 0.0)
    passed = [one for one in found["candidates"] if one["cost"] > limit]
    chosen = found["chosen"]
    student = model_of(model, Shape(chosen["layers"], chosen["heads"], chosen["units"]))
    assert chosen["cost"] == student.num_parameters() * chosen["layers"] ** 2 <= limit
    assert all(one["lost"] <= chosen["lost"] for one in passed)


def test_smaller_shapes_are_looked_at_where_the_largest_do_not_keep_theirs(monkeypatch):
    """Prevents a search that finds nothing, because what fits lies within shapes that seemed to."""
    model, found_costs, state = tiny.classifier(3), shape_search.costs, {"factor": 1}

    def then_dearer(*args):
        found = found_costs(*args)
        state["factor"] = 3
        return found

    def cost(one, _):
        return one.num_parameters() * (state["factor"] if one.config.num_hidden_layers > 1 else 1)

    monkeypatch.setattr(shape_search, "costs", then_dearer)
    monkeypatch.setattr(shape_search, "forward_flops", cost)
    budget = BudgetSection(flops=0.26, tries=1, length=16)  # of three times as much
    found = search_shape(budget, model, importance(model), lambda *_: 0.0)
    chosen = found["chosen"]
    assert chosen["layers"] == 1
    assert chosen["cost"] <= found["budget"]["limit"]


def test_a_budget_that_nothing_fits_tells_the_least():
    """Prevents a search that ends without a word."""
    with pytest.raises(UserError, match="the smallest shape takes") as raised:
        search_shape(BudgetSection(size_mb=0.001), tiny.classifier(2), None, None)
    assert "student.vocabulary" in str(raised.value)


@pytest.mark.parametrize("name", KINDS)
def test_the_distance_of_outputs_is_zero_at_the_teacher_alone(name):
    """Prevents a distance that a student could lower by leaving its teacher."""
    kind, shape = KINDS[name], {"spans": (4, 3, 2)}.get(KINDS[name].output, (4, 3))
    torch.manual_seed(0)
    one, batch = torch.randn(shape), {"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 1]])}
    assert output_distance(one, one, kind, batch) == pytest.approx(0, abs=1e-5)
    assert output_distance(one + torch.randn(shape), one, kind, batch) > 0.01


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def searched(place, budget, *overrides):
    pruning = f"student.pruning={{rows: 8, folder: {place.folder / 'importance'}}}"
    return place.run(f"student.budget={{{budget}}}", pruning, *overrides)


TERMS = ("objective.hidden_cosine=null", "objective.attention_kl=null")


def test_a_budget_goes_through_a_whole_run(place, capsys):
    """Prevents a student of another shape than was found, and seeds that search again."""
    early = ("evaluation.early_stopping_patience=3", "training.eval_strategy=steps", "training.eval_steps=1")
    early += ("training.save_strategy=steps", "training.save_steps=1", "training.load_best_model_at_end=true")
    options = ("evaluation.seeds=2", "evaluation.baselines=[random_init]", *early, *TERMS)
    assert searched(place, "parameters: 0.5, tries: 2, steps: 2", *options) == 0
    block = place.results["student"]["initialisation"]["pruning"]["search"]
    student = AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    chosen = block["chosen"]
    assert shape_of(student.config) == Shape(chosen["layers"], chosen["heads"], chosen["units"])
    assert student.num_parameters() <= block["budget"]["limit"]
    kept = sorted(file.suffix for file in (place.folder / "importance").iterdir())
    assert kept == [".json", ".safetensors"]
    said = " ".join(capsys.readouterr().out.split())
    assert said.count("were chosen, at") >= 1
    assert said.count("trying ") == 2
    assert said.count("student’s layers keep") == 2  # of each seed, not of trials and random weights
    report = " ".join((place.out / "report" / "report.md").read_text().split())
    assert "were chosen, at" in report
    assert "Importance lost over cost of" in report
    assert (place.out / "report" / "shapes.png").stat().st_size > 0


def test_an_ensemble_is_what_shapes_are_compared_with(place, monkeypatch):
    """Prevents a shape that is nearest to the first of several teachers, where students learn from all."""
    seen, logits = [], StudentPruner._logits

    def noted(pruner, model, batches):
        seen.append(len(ensemble_members(model)))
        return logits(pruner, model, batches)

    monkeypatch.setattr(StudentPruner, "_logits", noted)
    together = f"teacher.ensemble=[{{name: {place.folder / 'teacher'}}}]"
    assert searched(place, "parameters: 0.5, tries: 2, steps: 1", together, "evaluation.baselines=[]", *TERMS) == 0
    assert seen == [2, 1, 1], "the teachers, then each shape that is tried"


def test_a_baseline_of_random_weights_has_the_shape_alone(place, monkeypatch):
    """Prevents a baseline that is the student itself, since its shape was found by importance."""
    built, build = {}, StudentRun.build

    def noted(run, teacher, score=None):
        student, report = build(run, teacher, score)
        built[run.folder.name] = (student, report)
        return student, report

    monkeypatch.setattr(StudentRun, "build", noted)
    assert searched(place, "parameters: 0.5, tries: 1, steps: 1", "evaluation.baselines=[random_init]", *TERMS) == 0
    (own, copied), (other, drawn) = built.values()
    assert copied.layers
    assert drawn.layers is None
    assert not drawn.copied
    assert shape_of(other.config) == shape_of(own.config)


def test_two_processes_find_the_shape_of_one(place):
    """Prevents processes that measure, or choose, for themselves, and trials of other batches."""

    def found(name, size, run):
        budget = (
            "student.budget={parameters: 0.5, tries: 2, steps: 2}",
            f"student.pruning={{rows: 8, folder: {name}}}",
        )
        run(*budget, *TERMS, f"training.per_device_train_batch_size={size}", "run.overwrite=true")
        return place.results["student"]["initialisation"]["pruning"]["search"]

    one = found(place.folder / "one", 4, place.run)
    two = found(place.folder / "two", 2, lambda *given: forked_pair("scripts/distill.py", *place.command(*given)))
    for mine, theirs in zip(one["candidates"], two["candidates"], strict=True):
        assert mine.pop("distances") == pytest.approx(theirs.pop("distances"), rel=1e-3)
        assert mine == theirs
    assert {**one["chosen"], "distances": []} == {**two["chosen"], "distances": []}


@pytest.mark.parametrize(
    ("budget", "overrides", "message"),
    [
        ("", (), "one of latency_ms, latency, parameters, flops, size_mb"),
        ("flops: 0.5, parameters: 0.5", (), "one of latency_ms, latency, parameters, flops, size_mb"),
        ("flops: 1.5", (), "student.budget.flops"),
        ("flops: 0.5", ("student.num_layers=2",), "student.num_layers too"),
        ("flops: 0.5", ("student.layers=[0]",), "student.layers too"),
        ("flops: 0.5", ("student.name=somewhere",), "student.name too"),
        ("flops: 0.5", ("student.embedding_size=8",), "student.embedding_size too"),
        ("size_mb: 0.0001", TERMS, "the smallest shape takes"),
    ],
)
def test_budgets_that_cannot_be_are_refused(place, budget, overrides, message, capsys):
    """Prevents a traceback, and a shape that is told and searched for."""
    assert searched(place, budget, *overrides) != 0
    assert message in one_line(capsys.readouterr().err)
    assert not (place.out / "student").exists()
