"""The search of a study: what is tried first, what counts, and that it carries on."""

import json
import os
import time
from pathlib import Path

import pytest
import yaml

from distil_nlp.cli import study
from distil_nlp.errors import UserError
from distil_nlp.pipeline.planning.stage import DiskUse, PlannedStage, RunCosts
from distil_nlp.study.costs import _trials
from distil_nlp.study.processes import StudyJob, run_jobs
from distil_nlp.study.search import MethodSearch
from distil_nlp.study.search_space import SearchSettings
from tests.helpers.messages import one_line
from tests.helpers.studies import run_jobs_here
from tests.study.test_study import prepared

RATE, T = "training.learning_rate", "objective.soft_target_kl.temperature"
SPACE = {RATE: {"low": 1e-5, "high": 1e-3, "log": True}, T: [1, 2, 4]}
BEST = 2e-4


def search_in(folder, task="rte", **changes):
    """A search whose runs are made by `finish`."""
    recipe = changes.pop("recipe", {})
    settings = SearchSettings(**{"space": SPACE, "runs": 8, **changes})

    def job_of(values):
        if values.get(T) == "broken":
            raise UserError("objective", "a temperature", "none")
        name = "_".join(f"{value}" for value in values.values())
        return StudyJob(name, [json.dumps(values)], folder / f"trial-{name}")

    return MethodSearch(
        settings, task, "kd", [*settings.space], folder / "search.journal", job_of, "accuracy", "maximize",
        {RATE: 5e-5, T: 2} if T in settings.space else {}, seed=3, recipe=recipe,
    )  # fmt: skip


def finish(job, accuracy=None):
    """Leave what a run leaves; the accuracy is best at a learning rate of `BEST`, and of the last evaluation."""
    values = json.loads(job.arguments[0])
    score = 1 - abs(values[RATE] - BEST) if accuracy is None else accuracy
    job.folder.mkdir(exist_ok=True)
    history = [{"loss": 1.0}, {"eval_accuracy": 2.0, "step": 1}, {"eval_accuracy": score, "step": 2}]
    results = {"training": {"history": history}}
    (job.folder / "results.json").write_text(json.dumps(results))


def run(search, most=100):
    """Run trials; return the values of each."""
    tried = []
    for job in search.jobs():
        finish(job)
        search.record(job, 0)
        tried.append(json.loads(job.arguments[0]))
        if len(tried) == most:
            break
    return tried


def test_it_begins_with_the_recipe_and_the_papers_and_keeps_to_the_budget(tmp_path):
    """Prevents a search that ends with worse than what was there, and one that does not end."""
    search = search_in(tmp_path, first=[{RATE: BEST, T: 4}])
    tried = run(search)
    assert tried[0] == {RATE: 5e-5, T: 2}
    assert tried[1] == {RATE: BEST, T: 4}
    assert len(search.to_dict()["trials"]) == 8
    assert all(1e-5 <= one[RATE] <= 1e-3 and one[T] in (1, 2, 4) for one in tried)
    assert search.found == {RATE: BEST, T: 4}
    assert search.to_dict()["trials"][1]["value"] == 1.0, "the last evaluation, not the best on the way"


def test_a_search_that_was_stopped_carries_on(tmp_path):
    """Prevents trials that are lost, or run twice, because their process was stopped."""
    first = search_in(tmp_path)
    run(first, 3)
    stopped = next(job for job in first.jobs())
    again = search_in(tmp_path)
    jobs = again.jobs()
    resumed = next(jobs)
    assert resumed.folder == stopped.folder
    finish(resumed)
    again.record(resumed, 0)
    run(again)
    assert len(again.to_dict()["trials"]) == 8
    assert run(search_in(tmp_path)) == []
    assert len(run(search_in(tmp_path, runs=12))) == 4, "a larger budget goes on"
    points = [json.dumps(trial["point"]) for trial in search_in(tmp_path).to_dict()["trials"]]
    assert len(set(points)) == len(points) == 12, "with draws of its own"


@pytest.mark.parametrize("budget", [{"runs": 20}, {"hours": 1.0}])
def test_a_search_ends_where_all_has_been_tried(tmp_path, budget):
    """Prevents a budget that is spent on the same few points, a journal that grows for hours, and false failures."""
    search = search_in(tmp_path, **{"space": {RATE: [1e-5, 2e-4, 1e-3]}, "runs": None, **budget})
    assert sorted(one[RATE] for one in run(search)) == [1e-5, 2e-4, 1e-3]
    assert search.failures == {}
    assert [trial["state"] for trial in search.to_dict()["trials"]] == ["complete"] * 3
    assert search.found == {RATE: 2e-4}


def test_values_that_run_already_are_not_run_twice(tmp_path):
    """Prevents a trial that waits for itself, and a study that ends as failed for one draw that came twice at once."""
    search = search_in(tmp_path, space={RATE: [1e-5, 2e-4]}, runs=4, first=[{RATE: 1e-5}])
    jobs = search.jobs()
    running = [next(jobs), next(jobs)]
    assert next(jobs, None) is None
    for job in running:
        finish(job)
        search.record(job, 0)
    assert search.failures == {}
    assert len(search.to_dict()["trials"]) == 2


def test_trials_of_another_recipe_are_not_taken_for_these(tmp_path):
    """Prevents the best of what a method was before, under the name of what it is now."""
    search_in(tmp_path, recipe={"objective.hidden_cosine.weight": 1.0})
    search_in(tmp_path, recipe={"objective.hidden_cosine.weight": 1.0})
    with pytest.raises(UserError, match=r"hidden_cosine.weight was 1.0, is 10.0"):
        search_in(tmp_path, recipe={"objective.hidden_cosine.weight": 10.0})


def test_the_value_is_that_of_the_student_that_is_kept(tmp_path):
    """Prevents the best evaluation on the way, where the checkpoint was chosen by another metric."""
    search = search_in(tmp_path)
    job = next(search.jobs())
    finish(job)
    results = json.loads((job.folder / "results.json").read_text())
    results["training"]["best_checkpoint"] = "checkpoint-1"
    (job.folder / "results.json").write_text(json.dumps(results))
    search.record(job, 0)
    assert search.to_dict()["trials"][0]["value"] == 2.0


def test_a_trial_below_the_others_ends_early(tmp_path):
    """Prevents hours for values that are seen to be bad, and a value of an unfinished trial that wins."""
    search = search_in(tmp_path, runs=7)
    for number, job in enumerate(search.jobs()):
        job.folder.mkdir()
        checkpoint = job.folder / "checkpoint-5"
        checkpoint.mkdir()
        score = 0.7 if number < 6 else 0.4
        log = [{"loss": 1.0, "step": 5}, {"eval_accuracy": score, "step": 5}]
        (checkpoint / "trainer_state.json").write_text(json.dumps({"log_history": log}))
        is_told = search.should_stop(job)
        assert is_told == (number == 6)
        finish(job, score)
        search.record(job, 143 if is_told else 0)
    last = search.to_dict()["trials"][-1]
    assert (last["state"], last["value"], last["steps"]) == ("pruned", 0.4, 5)
    assert not list(Path(tmp_path / last["folder"]).glob("checkpoint-*")), "nobody carries it on"


def test_a_trial_that_fails_stops_no_other(tmp_path):
    """Prevents a night that ends at values that make no recipe."""
    search = search_in(tmp_path, space={RATE: SPACE[RATE], T: [2, "broken"]}, runs=6)
    run(search)
    states = {trial["state"] for trial in search.to_dict()["trials"]}
    assert states == {"complete", "fail"}
    assert all("expected a temperature" in reason for reason in search.failures.values())
    assert search.found[T] == 2


def test_hours_count_what_earlier_stretches_took(tmp_path, monkeypatch):
    """Prevents a budget in hours that begins anew each time."""
    clock = iter(range(0, 10**9, 600))
    monkeypatch.setattr("distil_nlp.study.search.time.monotonic", lambda: next(clock))
    first = run(search_in(tmp_path, runs=None, hours=2))
    assert 3 < len(first) <= 12
    assert run(search_in(tmp_path, runs=None, hours=2)) == []


def test_no_metric_of_the_rows_held_back_is_an_error(tmp_path):
    """Prevents a search that is led by the rows that are scored."""
    search = search_in(tmp_path)
    job = next(search.jobs())
    finish(job)
    results = json.loads((job.folder / "results.json").read_text())
    results["training"]["history"] = [{"loss": 1.0, "eval_f1": 0.5}]
    (job.folder / "results.json").write_text(json.dumps(results | {"student": {"metrics": {"accuracy": 1.0}}}))
    with pytest.raises(UserError, match=r"search.metric: expected one of f1"):
        search.record(job, 0)


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"space": SPACE}, "either runs or hours says when the search ends"),
        ({"space": SPACE, "runs": 3, "hours": 1}, "either runs or hours says when"),
        ({"space": {RATE: {"low": 1, "high": 0.1}}, "runs": 3}, "low: 1 is not below high: 0.1"),
        ({"space": {RATE: {"low": 0, "high": 0.1, "log": True}}, "runs": 3}, "log: true needs low above 0"),
        ({"space": {"rate": {"low": 0, "high": 0.1}}, "runs": 3}, "search.space.rate: expected a key of the recipe"),
        ({"space": SPACE, "runs": 3, "first": [{T: 3}]}, f"search.first.{T}: expected one of 1, 2, 4 / got 3"),
        ({"space": SPACE, "runs": 3, "first": [{RATE: 1}]}, "expected a number from 1e-05 to 0.001 / got 1"),
        ({"space": SPACE, "runs": 3, "first": [{"x.y": 1}]}, "the space has no such key"),
    ],
    ids=str,
)
def test_mistakes_of_a_search_are_told(tmp_path, capsys, search, words):
    """Prevents hours that end at a typing mistake."""
    path, folder = prepared(tmp_path, search=search)
    assert study([path, "--output", str(folder)]) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not folder.exists()


def test_a_search_beside_a_grid_is_refused(tmp_path, capsys):
    """Prevents a search for each cell of a grid, which nobody meant."""
    path, folder = prepared(tmp_path, search={"space": SPACE, "runs": 3}, sweep={"data.share": [0.5, 1]})
    assert study([path, "--output", str(folder)]) == 2
    assert "search: expected a search or a sweep / got both" in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_a_search_goes_through_a_whole_study(tmp_path, capsys, monkeypatch):
    """Prevents values that were chosen by the rows that are scored, or with the seeds that are."""
    monkeypatch.setattr("distil_nlp.study.runner.run_jobs", run_jobs_here)
    monkeypatch.setattr("distil_nlp.study.tuning.run_jobs", run_jobs_here)
    space = {RATE: {"low": 1e-5, "high": 1e-2, "log": True}, T: [1, 2, 4]}
    path, folder = prepared(tmp_path, search={"space": space, "runs": 3}, seeds=2)
    command = [path, "--output", str(folder), "training.num_train_epochs=1", "--methods", "plain"]
    assert study(command) == 0
    printed = capsys.readouterr().out
    assert "trials, valued by accuracy of rows held back" in printed
    rows = {row["method"]: row for row in json.loads((folder / "study.json").read_text())}
    assert set(rows) == {"plain", "plain (tuned)"}
    assert rows["plain (tuned)"]["gain"]["seeds"] == 2
    (search,) = json.loads((folder / "search.json").read_text())
    assert [trial["state"] for trial in search["trials"]] == ["complete"] * 3
    trial = json.loads((folder / "classification" / search["trials"][0]["folder"] / "results.json").read_text())
    own = json.loads((folder / "classification" / rows["plain (tuned)"]["run"] / "results.json").read_text())
    assert trial["environment"]["seed"] == own["environment"]["seed"] + 1_000, "and not that of another number of seeds"
    assert any("eval_accuracy" in entry for entry in trial["training"]["history"])
    assert not any("eval_accuracy" in entry for entry in own["training"]["history"])
    best = max(search["trials"], key=lambda one: one["value"])
    assert own["recipe"]["training"]["learning_rate"] == best["point"][RATE]
    assert own["recipe"]["objective"]["soft_target_kl"]["temperature"] == best["point"][T]
    page = (folder / "report" / "report.html").read_text()
    assert "classification: search of plain" in page
    assert "so it flatters" in page
    assert (folder / "report" / "search-classification-plain.png").is_file()
    assert study(command) == 0
    assert "trial:" not in capsys.readouterr().out, "nothing is run again"
    settings = yaml.safe_load(Path(path).read_text())
    settings["search"]["space"][T] = [1, 2]
    Path(path).write_text(yaml.safe_dump(settings))
    assert study(command) == 2
    assert "got others" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(("budget", "runs"), [({"runs": 4}, 4), ({"hours": 0.02}, 6)])
def test_a_plan_counts_the_trials(budget, runs):
    """Prevents a plan that forgets what takes most of the study."""
    stages = [
        PlannedStage("loading", "start", 2.0),
        PlannedStage("fine-tuning", "teacher", 10.0, steps=5, tokens=50, flops=5.0),
        PlannedStage("distilling", "student", 30.0, times=3, steps=7, tokens=300, flops=90.0),
    ]
    costs = RunCosts(stages, None, "", DiskUse(), 0)
    trials = _trials(costs, SearchSettings(space=SPACE, **budget))
    assert [(one.kind, one.seconds, one.times) for one in trials.stages] == [
        ("teacher", 10.0, 1), ("start", 2.0 * runs, runs), ("student", 10.0 * runs, runs),
    ]  # fmt: skip
    assert trials.flops == 5.0 + 30.0 * runs
    assert trials.steps == 5 + 7 * runs


def sleep(arguments):
    """Write a file and wait to be stopped."""
    Path(arguments[0]).write_text(str(os.getpid()))
    time.sleep(120)
    return 0


@pytest.mark.integration
def test_one_job_is_stopped_and_the_others_go_on(tmp_path):
    """Prevents a search that ends with the first trial that it ends early."""
    jobs = [
        StudyJob(str(n), [str(tmp_path / f"{n}.txt")], tmp_path / str(n), tmp_path / f"{n}.log", f"{__name__}:sleep")
        for n in range(3)
    ]
    ended = list(run_jobs(iter(jobs), 2, should_stop=lambda job: Path(job.arguments[0]).is_file()))
    assert sorted(job.name for job, _ in ended) == ["0", "1", "2"]
    assert all(code for _, code in ended)
