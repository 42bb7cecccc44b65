"""Cells of a study: which runs a grid or a sweep makes, and what they are known by."""

import pytest
import yaml

from distil_nlp.cli import study
from distil_nlp.errors import UserError
from distil_nlp.study.axes import axis_of
from distil_nlp.study.cells import baseline_of, cells_of, overrides_of
from distil_nlp.study.plan import LABELS_ONLY_METHOD, read_plan, recipe_of
from distil_nlp.study.runner import plan_cells
from tests.helpers import ROOT
from tests.helpers.messages import one_line

T, ALPHA, RATE = "objective.soft_target_kl.temperature", "objective.soft_target_kl.weight", "training.learning_rate"


def written(tmp_path, **plan):
    recipe = {
        "teacher": {"name": "t"},
        "data": {"path": "d", "task": "mrpc", "augmentation": {"mixup": {}}},
        "objective": {"hard_label": {}, "soft_target_kl": {}},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"recipe": "r.yaml", **plan}, sort_keys=False))
    return path


def test_a_study_names_a_recipe_that_ships(tmp_path):
    """Prevents a study that cannot be copied out of the folder of recipes."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"recipe": "own_data", "sweep": {T: [1, 2]}}))
    plan = read_plan(path)
    assert plan.recipe_file(path) == ROOT / "recipes" / "own_data.yaml"
    assert plan.tasks == ["classification"]
    (tmp_path / "own_data").write_text("data: {task: regression}")
    assert read_plan(path).tasks == ["regression"], "a file beside it is meant first"


def test_a_grid_has_a_cell_for_each_point_and_one_without_a_teacher(tmp_path):
    """Prevents labels only that are trained again at each temperature, which has no effect on them."""
    plan = read_plan(written(tmp_path, grid={T: [1, 2, 4], ALPHA: [0, 1]}))
    cells = cells_of(plan)
    assert [cell.method for cell in cells].count("distilled") == 6
    assert [cell.name for cell in cells if cell.method == LABELS_ONLY_METHOD] == [LABELS_ONLY_METHOD]
    assert {baseline_of(plan, cell).name for cell in cells} == {LABELS_ONLY_METHOD}
    assert cells[0].overrides == [f"{T}=1", f"{ALPHA}=0"]


def test_labels_only_are_trained_at_each_point_that_matters_to_them(tmp_path):
    """Prevents a gain over a baseline of another learning rate."""
    plan = read_plan(written(tmp_path, grid={T: [1, 2], RATE: [1e-5, 1e-4]}))
    labels = {tuple(cell.settings.items()) for cell in cells_of(plan) if cell.method == LABELS_ONLY_METHOD}
    assert labels == {((RATE, 1e-5),), ((RATE, 1e-4),)}
    for cell in cells_of(plan):
        assert baseline_of(plan, cell).settings == {RATE: cell.settings[RATE]}


def test_what_was_searched_is_compared_with_what_was(tmp_path):
    """Prevents a method that is ahead because its learning rate was searched for, and the baseline's was not."""
    methods = {"kd": {"soft_target_kl": {}}, "plain": {"hard_label": {}}}
    search = {"space": {RATE: [1e-5, 1e-4]}, "runs": 2}
    plan = read_plan(written(tmp_path, methods=methods, baseline="plain", search=search))
    plan.found["mrpc", "kd"] = {RATE: 1e-4}
    alone = {cell.arm: baseline_of(plan, cell).arm for cell in cells_of(plan)}
    assert alone == {"kd": "plain", "plain": "plain", "kd (tuned)": "plain"}
    plan.found["mrpc", "plain"] = {RATE: 1e-5}
    both = {cell.arm: baseline_of(plan, cell).arm for cell in cells_of(plan)}
    assert both == {**alone, "kd (tuned)": "plain (tuned)", "plain (tuned)": "plain"}


def test_a_cell_is_known_by_its_ingredients(tmp_path):
    """Prevents finished cells that are run again because a value was added, or a run under another's name."""
    few = read_plan(written(tmp_path, grid={T: [1, 2], ALPHA: [0, 1]}))
    more = read_plan(written(tmp_path, grid={"both": {T: [8, 1, 2], RATE: [1e-5, 1e-5, 1e-4]}, ALPHA: [1, 0]}))
    again = read_plan(written(tmp_path, grid={T: [8, 2, 1], ALPHA: [1, 0, 2]}))
    assert {cell.name for cell in cells_of(few)} < {cell.name for cell in cells_of(again)}
    assert not {cell.name for cell in cells_of(few)} & {cell.name for cell in cells_of(more)} - {LABELS_ONLY_METHOD}
    assert {cell.point["both"] for cell in cells_of(more) if "both" in cell.point} == {8, 1, 2}
    names = [cell.name for cell in cells_of(again)]
    assert len(set(names)) == len(names)


def test_a_method_without_the_term_does_not_get_it_from_the_grid(tmp_path):
    """Prevents labels only, written as a method, that learn from a teacher because a key of its term is varied."""
    methods = {"kd": {}, "labels": {"soft_target_kl": None}}
    plan = read_plan(written(tmp_path, methods=methods, sweep={T: [1, 2]}, baseline="labels"))
    assert [cell.name for cell in cells_of(plan) if cell.method == "labels"] == ["labels"]


def test_settings_of_all_runs_leave_a_method_what_makes_it(tmp_path):
    """Prevents eight epochs that are one, a cache for who takes none, and a dropped term that is back."""
    methods = {
        "kd": {},
        "long": {"training.num_train_epochs": 8},
        "alone": {"soft_target_kl": None, "teacher.self": {"kind": "ema"}, "teacher.cache": None},
        "labels": {"soft_target_kl": None},
    }
    path = written(tmp_path, methods=methods, baseline="kd")
    given = ["teacher.cache={}", "training.num_train_epochs=1", f"{T}=4", "objective.hard_label.weight=0.5"]
    recipes = {one.cell.method: one.recipe for one in plan_cells(read_plan(path), path, tmp_path / "study", given)}
    assert {name: recipe.training["num_train_epochs"] for name, recipe in recipes.items()} == {
        "kd": 1, "long": 8, "alone": 1, "labels": 1,
    }  # fmt: skip
    assert {name for name, recipe in recipes.items() if recipe.teacher.cache is None} == {"alone"}
    assert {name for name, recipe in recipes.items() if recipe.objective.soft_target_kl} == {"kd", "long"}
    assert recipes["kd"].objective.soft_target_kl.temperature == 4
    assert all(recipe.objective.hard_label.weight == 0.5 for recipe in recipes.values())


def test_settings_of_all_runs_give_labels_only_no_teacher(tmp_path):
    """Prevents a baseline without a teacher that is taught, because the temperature of all runs was set."""
    plan = read_plan(written(tmp_path, sweep={RATE: [1e-5, 1e-4]}))
    given = [f"{T}=4", "teacher={cache: {}}", "student={ema: 0.9, exits: {after: [1]}}", "training.seed=3"]
    kept = overrides_of(plan, LABELS_ONLY_METHOD, given)
    assert kept[:3] == given[1:]
    assert "student.exits=null" in kept
    assert "student.ema=null" not in kept
    assert overrides_of(plan, "distilled", given) == given


def test_a_run_of_a_study_is_quick_and_has_its_methods_keys(tmp_path):
    """Prevents a minute of latencies for each cell, and labels only that mix rows without labels."""
    methods = {"kd": {"evaluation.efficiency": "full", "hidden_cosine": {"layers": "last"}}}
    path = written(tmp_path, methods=methods, sweep={T: [1, 2]})
    plan = read_plan(path)
    kd, labels = (yaml.safe_load(recipe_of(plan, path, name, tmp_path).read_text()) for name in plan.all_methods)
    assert list(kd["objective"]) == ["hard_label", "soft_target_kl", "hidden_cosine"]
    assert kd["evaluation"]["efficiency"] == "full"
    assert labels["evaluation"] == {"efficiency": "off", "compare_layers": False, "baselines": []}
    assert labels["objective"] == {"hard_label": {}}
    assert labels["data"]["augmentation"] == {"mixup": None}
    assert kd["run"] == labels["run"]


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ({}, "methods: expected methods, a grid, a sweep or a search / got none"),
        ({"grid": {T: [1, 2]}}, "grid: expected a value such as"),
        ({"sweep": {T: [1], ALPHA: [1]}}, "sweep: expected a value such as {data.share"),
        ({"sweep": {"temperature": [1, 2]}}, "sweep.temperature: expected a key of the recipe with its section"),
        ({"sweep": {T: []}}, f"sweep.{T}: expected some values / got 0 / nothing is varied"),
        ({"sweep": {T: [1, 1]}}, f"sweep.{T}: expected different values"),
        ({"sweep": {"a": {T: [1, 2], ALPHA: [1]}}}, f"sweep.a: expected 2 values for {ALPHA} / got 1"),
        ({"sweep": {T: [1]}, "grid": {T: [1], ALPHA: [1]}}, "sweep: expected a grid or a sweep / got both"),
        ({"methods": {"a": {"hard_label": 3}}}, "methods: expected a value such as"),
    ],
    ids=str,
)
def test_a_grid_is_told_what_is_wrong_with_it(tmp_path, plan, words):
    """Prevents hours of runs at points that nobody meant."""
    with pytest.raises(UserError) as raised:
        read_plan(written(tmp_path, **plan))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("override", "seeds", "tasks"),
    [
        ("evaluation.seeds=1", 1, ["mrpc"]),
        ("data.task=stsb", 3, ["stsb"]),
        ("data.task=[mrpc, stsb]", 3, ["mrpc", "stsb"]),
        ("training.seed=7", 3, ["mrpc"]),
    ],
)
def test_seeds_and_tasks_can_be_given_for_all_runs(tmp_path, override, seeds, tasks):
    """Prevents seeds=1 on the command line that is read, and three students that are trained for hours."""
    path = written(tmp_path, tasks=["mrpc"], methods={"plain": {}, "soft": {"hard_label": None}})
    plan = read_plan(path, [override])
    assert (plan.seeds, plan.tasks) == (seeds, tasks)
    made = plan_cells(plan, path, tmp_path / "study", [override])
    assert {(one.recipe.data.task, one.recipe.evaluation.seeds) for one in made} == {(task, seeds) for task in tasks}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("evaluation.seeds=0", "seeds: "),
        ("evaluation.seeds=[1, 2", "expected a YAML value"),
        ("training.output_dir=here", "training.output_dir: expected --output, the folder of the study / got 'here'"),
    ],
)
def test_what_a_study_cannot_take_for_all_runs_is_told(tmp_path, override, words):
    """Prevents a value that is dropped in silence."""
    path = written(tmp_path, methods={"plain": {}, "soft": {"hard_label": None}})
    with pytest.raises(UserError) as raised:
        plan_cells(read_plan(path, [override]), path, tmp_path / "study", [override])
    assert words in str(raised.value)


def test_plan_finds_the_shipped_study(tmp_path):
    """Prevents `plan methods` that looks for a file, where `study methods` knows one."""
    from distil_nlp.cli.commands.plan import _file_of

    assert _file_of("methods") == _file_of("study/methods")
    assert _file_of("glue").is_file()


def test_few_labels_are_learned_for_as_many_steps_as_all():
    """Prevents labels only from ending after a hundredth of the steps, because it has a hundredth of the rows."""
    plan = read_plan(ROOT / "recipes/study/few_labels.yaml")
    plan.all_steps["sst2"] = 1000
    cells = cells_of(plan)
    assert {cell.method for cell in cells} == {"distilled", LABELS_ONLY_METHOD}
    steps = {
        (cell.method, cell.settings["data.labelled_share"]): cell.settings.get("training.max_steps") for cell in cells
    }
    assert steps == {(name, share): 1000 if share < 1 else None for name, share in steps}
    assert len(steps) == len(cells) == 10


@pytest.mark.parametrize("file", sorted((ROOT / "recipes/study").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_method_of_a_shipped_study_is_a_recipe(tmp_path, file):
    """Prevents a shipped study that ends at its last method."""
    plan = read_plan(file).model_copy(update={"equal": ["epochs"]})  # the same steps for all shares need the data
    cells = plan_cells(plan, file, tmp_path, ["teacher.cache={}"] if file.stem == "schemes" else [])
    assert [one.cell.method for one in cells][: len(plan.methods)] == list(plan.methods)
    assert plan.compared_with in {one.cell.method for one in cells}


def test_an_unknown_key_is_told_before_anything_runs(tmp_path, capsys):
    assert (
        study([str(written(tmp_path, sweep={"training.lerning_rate": [1, 2]})), "--output", str(tmp_path / "o")]) == 2
    )
    assert "lerning_rate" in one_line(capsys.readouterr().err)
    assert not (tmp_path / "o" / "mrpc").exists()


@pytest.mark.parametrize(
    ("values", "is_logarithmic"),
    [([0.01, 0.03, 0.1, 0.3, 1], True), ([1, 2, 4, 8], True), ([1, 2, 3, 4], False), ([0, 1, 10, 100], False),
     (["a", "b", "c"], False), ([10, 20, 30], False), ([1, 2], False)],
    ids=str,
)  # fmt: skip
def test_an_axis_is_logarithmic_where_its_values_are(values, is_logarithmic):
    """Prevents shares of 1 to 100 % whose small ones are one dot."""
    assert axis_of("a.b", values).is_logarithmic == is_logarithmic


@pytest.mark.parametrize(
    ("name", "title"),
    [(T, "temperature T"), (ALPHA, "weight of soft_target_kl"), ("alpha", "alpha"), ("teacher.name", "name (teacher)"),
     ("teacher.finetune.num_train_epochs", "epochs of the teacher’s fine-tuning")],
)  # fmt: skip
def test_an_axis_has_a_name(name, title):
    assert axis_of(name, [1]).title == title
