"""The search of a study: trials of a method's keys, proposed by Optuna and kept in its journal file.

A trial is a run with one student, of a seed that no other run has. Its value is a metric of the rows that are held back
from training to choose by; the rows that are scored do not count.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from distil_nlp.errors import UserError, listed
from distil_nlp.results import get_nested, has_results
from distil_nlp.study.processes import StudyJob
from distil_nlp.study.search_space import SearchSettings
from distil_nlp.utils.files import load_json
from distil_nlp.utils.logging import get_logger
from distil_nlp.utils.settings import describe_changes

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

logger = get_logger(__name__)

SEARCHES = "search.json"
"""The file of a study's finished trials."""
_FIRST_TRIALS = 10
"""Trials that are drawn by chance, after the given ones, before TPE proposes; Optuna's own default."""
_UNPRUNED = 5
"""Trials that are never ended early, since there is no median yet; Optuna's own default."""
_SECONDS = "seconds"
_FOLDER = "folder"
_REPEATS = "repeats"
"""Note of a trial whose values another one has had, which counts for nothing."""
_RECIPE = "recipe"
_IDLE = 100
"""Draws in a row that make no new run, after which a search ends: all points of its space have been tried."""


@dataclass
class MethodSearch:
    """The trials of one method on one task.

    Attributes:
        settings: of the study's file.
        task: of the trials.
        method: whose keys are looked through.
        keys: names in the space that mean something to the method.
        journal: the file of all trials.
        job_of: keys of the recipe → a trial's run. Raises UserError for values that make no recipe.
        direction: `maximize`, or `minimize` for an error or a loss.
        metric: name in the evaluations of the log.
        start: point of the recipe's own values, as far as the space has them.
        seed: of the sampler.
        recipe: settings of all trials, by key, but for those that are looked through.
        at_once: trials at a time.
    """

    settings: SearchSettings
    task: str
    method: str
    keys: list[str]
    journal: Path
    job_of: Callable[[Mapping[str, Any]], StudyJob]
    metric: str
    direction: Literal["minimize", "maximize"]
    start: Mapping[str, Any]
    seed: int
    recipe: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = 1
    failures: dict[str, str] = field(default_factory=dict)
    _running: dict[str, tuple[Trial, float]] = field(default_factory=dict)
    _pruned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._study = _open(self)
        self._check_recipe()
        for point in [self.start, *self.settings.first]:
            known = {name: self.settings.parameter(name, value) for name, value in point.items() if name in self.keys}
            if known:
                self._study.enqueue_trial(known, skip_if_exists=True)

    def _check_recipe(self) -> None:
        """Raise UserError for trials of other settings, whose best would be taken for this method's."""
        before = self._study.user_attrs.get(_RECIPE)
        if before is None:
            self._study.set_user_attr(_RECIPE, dict(self.recipe))
        elif changes := describe_changes(before, json.loads(json.dumps(self.recipe))):
            raise UserError(
                f"methods.{self.method}",
                f"the settings of the trials in {self.journal.parent}",
                f"others: {listed(changes, 5)}",
                why="the best of these trials would be taken for this method's",
                fix="give the method another name, or name another folder by --output",
            )

    def jobs(self) -> Iterator[StudyJob]:
        """Yield the runs of trials, those that were stopped on their way first, until the budget is spent.

        The search ends before where the space has no point that was not tried.
        """
        from optuna.trial import Trial, TrialState

        stopped = self._study.get_trials(states=[TrialState.RUNNING])
        begun = (Trial(self._study, trial._trial_id) for trial in stopped)
        drawn = (self._study.ask() for _ in iter(self._has_budget, False))
        idle = 0
        for trial in chain(begun, drawn):
            job = self._job(self._complete(trial))
            idle = idle + 1 if job is None else 0
            if job is not None:
                yield job
            elif idle == _IDLE:
                logger.info(f"{self.method} on {self.task}: the last {_IDLE} draws made no new run; the search ends")
                return

    def _complete(self, trial: Trial) -> Trial:
        """Return a trial with a value of each key, those it has already among them."""
        for name in self.keys:
            if (span := self.settings.ranges.get(name)) is None:
                trial.suggest_categorical(name, range(len(self.settings.choices[name].values)))
            elif span.is_whole:
                trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
            else:
                trial.suggest_float(name, span.low, span.high, log=span.log)
        return trial

    def _job(self, trial: Trial) -> StudyJob | None:
        """Return the run of a trial; None if it is finished, another trial's, or makes no recipe."""
        try:
            job = self.job_of(self.settings.settings(trial.params))
        except UserError as error:
            self._fail(trial, str(error))
            return None
        if self._repeats(trial, job.folder):
            return None
        trial.set_user_attr(_FOLDER, job.folder.name)
        self._running[str(job.folder)] = trial, time.monotonic()
        if not has_results(job.folder):
            return job
        self.record(job, 0)  # it told nobody before it was stopped
        return None

    def _repeats(self, trial: Trial, folder: Path) -> bool:
        """Return whether another trial has the same values; if so, end this one with the other's value, if any."""
        others = (one for one in self._counted() if one.number != trial.number)
        twin = next((one for one in others if one.user_attrs.get(_FOLDER) == folder.name), None)
        if twin is None:
            return False
        from optuna.trial import TrialState

        trial.set_user_attr(_REPEATS, twin.number)
        is_valued = twin.state == TrialState.COMPLETE
        self._study.tell(trial, twin.value if is_valued else None, state=None if is_valued else TrialState.FAIL)
        return True

    def _counted(self) -> list[FrozenTrial]:
        """Return the trials that have values of their own."""
        return [trial for trial in self._study.get_trials(deepcopy=False) if _REPEATS not in trial.user_attrs]

    def _has_budget(self) -> bool:
        trials = self._counted()
        if self.settings.runs is not None:
            return sum(trial.state.name != "WAITING" for trial in trials) < self.settings.runs
        spent = sum(trial.user_attrs.get(_SECONDS, 0.0) for trial in trials)
        spent += sum(time.monotonic() - since for _, since in self._running.values())
        return spent < (self.settings.hours or 0) * 3600 * self.at_once

    def should_stop(self, job: StudyJob) -> bool:
        """Return whether a trial that runs is to end, by the evaluations that it has saved so far."""
        trial, _ = self._running[str(job.folder)]
        for entry in saved_log(job.folder):
            if (value := entry.get(f"eval_{self.metric}")) is not None:
                trial.report(value, entry["step"])
        if self.settings.prune and trial.should_prune():
            self._pruned.add(str(job.folder))
            return True
        return False

    def record(self, job: StudyJob, code: int) -> None:
        """Tell Optuna how a trial ended."""
        trial, since = self._running.pop(str(job.folder))
        before = self._study.get_trials(deepcopy=False)[trial.number].user_attrs.get(_SECONDS, 0.0)
        trial.set_user_attr(_SECONDS, before + time.monotonic() - since)
        if str(job.folder) in self._pruned:
            from optuna.trial import TrialState

            self._study.tell(trial, state=TrialState.PRUNED)
            for checkpoint in job.folder.glob("checkpoint-*"):  # nobody carries it on
                shutil.rmtree(checkpoint, ignore_errors=True)
        elif code:
            self._fail(trial, job.failure(code))
        else:
            self._study.tell(trial, self._value_of(job.folder))

    def _value_of(self, folder: Path) -> float:
        """Return the metric of the student that a run has kept: at its best checkpoint, if it chose one, or the last.

        Raises:
            UserError: if no evaluation has it.
        """
        results = load_json(folder / "results.json")
        name = f"eval_{self.metric}"
        entries = [entry for entry in results["training"]["history"] if any(key.startswith("eval_") for key in entry)]
        values = {entry["step"]: entry[name] for entry in entries if name in entry}
        if not values:
            known = {key.removeprefix("eval_") for entry in entries for key in entry if key.startswith("eval_")}
            raise UserError(
                "search.metric",
                f"one of {listed(sorted(known), 20)}" if known else "a metric of the evaluations while training",
                self.metric,
                why="no evaluation has it" if known else f"{folder} was not evaluated while it trained",
                fix="name one of these" if known else "set training.eval_strategy: epoch in the recipe",
            )
        chosen = (get_nested(results, "training", "best_checkpoint") or "").rpartition("-")[2]
        return values[int(chosen) if chosen else max(values)]

    def _fail(self, trial: Trial, reason: str) -> None:
        from optuna.trial import TrialState

        self.failures[f"trial {trial.number} of {self.method} on {self.task}"] = reason
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=TrialState.FAIL)

    @property
    def found(self) -> dict[str, Any] | None:
        """The best trial's keys of the recipe; None if none has ended."""
        best = self._best()
        return None if best is None else self.settings.settings(best.params)

    def _best(self) -> FrozenTrial | None:
        from optuna.trial import TrialState

        done = [trial for trial in self._counted() if trial.state == TrialState.COMPLETE and trial.value is not None]
        choose = max if self.direction == "maximize" else min
        return choose(done, key=lambda trial: trial.value or 0.0, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return all trials that have ended, as `search.json` has them."""
        trials, best = self._counted(), self._best()
        return {
            "task": self.task,
            "method": self.method,
            "metric": self.metric,
            "direction": self.direction,
            "best": None if best is None else best.number,
            "found": self.found,
            "trials": [self._trial_dict(trial) for trial in trials if trial.state.is_finished()],
        }

    def _trial_dict(self, trial: FrozenTrial) -> dict[str, Any]:
        steps = sorted(trial.intermediate_values.items())
        return {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "point": self.settings.point(trial.params),
            "value": trial.value if trial.value is not None else (steps[-1][1] if steps else None),
            "steps": steps[-1][0] if steps else None,
            "seconds": trial.user_attrs.get(_SECONDS),
            "folder": trial.user_attrs.get(_FOLDER),
            "reason": trial.user_attrs.get("reason"),
        }


def saved_log(folder: Path) -> list[dict[str, Any]]:
    """Return the log that the newest checkpoint of a run has; [] before the first."""
    states = sorted(folder.glob("checkpoint-*/trainer_state.json"), key=lambda file: file.stat().st_mtime)
    try:
        return load_json(states[-1])["log_history"] if states else []
    except (OSError, ValueError, KeyError):  # still being written, or just deleted
        return []


def _open(search: MethodSearch) -> Study:
    """Return Optuna's study of a search, taken up from its journal if there is one.

    Raises:
        UserError: without Optuna.
    """
    try:
        import optuna
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise UserError(
            "search", "Optuna, which proposes the trials", "no such package", fix="pip install 'distil-nlp[search]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    given = len(search.settings.first) + bool(search.start)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(search.journal)))
    study = optuna.create_study(
        storage=storage,
        study_name=f"{search.task}/{search.method}",
        direction=search.direction,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_UNPRUNED),
        load_if_exists=True,
    )
    seed = search.seed + len(study.get_trials(deepcopy=False))  # one taken up again would else draw the same once more
    study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=_FIRST_TRIALS + given)
    return study


def read_searches(folder: Path) -> list[dict[str, Any]]:
    """Return the searches of a study's folder; [] without any."""
    file = folder / SEARCHES
    return json.loads(file.read_text()) if file.is_file() else []


def best_trial(search: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the best trial of a search that has one, as `search.json` has it."""
    return next(trial for trial in search["trials"] if trial["number"] == search["best"])
