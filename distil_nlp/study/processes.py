"""Runs of a study in processes of their own, several at a time, each with its cores and its log.

The processes are forked from a server that has imported torch and transformers, so that a run does not wait for that.
The server touches no accelerator, which a forked process could not use then.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from pkgutil import resolve_name

from distil_nlp.errors import Preempted
from distil_nlp.training.preemption import on_sigterm
from distil_nlp.utils.files import write_atomically

MEMORY_FILE = "peak_mib.txt"
"""The peak memory of a run's process in MiB, in the run's folder."""
_DISTIL = "distil_nlp.cli:distill"
_PRELOADED = ["distil_nlp.cli", "distil_nlp.pipeline.distill", "distil_nlp.study.prepare"]
_STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)
"""Exit codes of a process that was told to stop."""
_ASK_EVERY = 2.0
"""Seconds between two questions whether a job is to be stopped."""


@dataclass(frozen=True)
class StudyJob:
    """Work for a process of its own.

    Attributes:
        name: for people.
        arguments: of the function.
        folder: of its run.
        log: the file for what it prints; None to let it print.
        entry: the function that takes the arguments and returns an exit code, as `module:name`.
    """

    name: str
    arguments: Sequence[str]
    folder: Path
    log: Path | None = None
    entry: str = _DISTIL

    def failure(self, code: int) -> str:
        """Return in words that it ended with an exit code, and where to look."""
        return f"exit code {code}" + (f", see {self.log}" if self.log else ", see above")


def log_file(study: Path, task: str, name: str, at_once: int) -> Path | None:
    """Return the file for what a run of a study prints; None where runs come one by one, and may print."""
    return study / "logs" / task / f"{name}.log" if at_once > 1 else None


def run_jobs(
    jobs: Iterable[StudyJob],
    at_once: int,
    on_start: Callable[[StudyJob], None] = lambda job: None,
    should_stop: Callable[[StudyJob], bool] | None = None,
) -> Iterator[tuple[StudyJob, int]]:
    """Run jobs, at most `at_once` at a time; yield each with its exit code as it ends.

    With several at a time each has its share of the cores to itself. Ctrl-C, SIGTERM, and a process that was told to
    stop by somebody else stop all of them, and each is waited for.

    Args:
        jobs: in the order in which they start; each is asked for when there is room for it.
        at_once: most of them at a time.
        on_start: called with each job as it starts.
        should_stop: asked every few seconds whether a job is to be stopped; others go on.

    Raises:
        Preempted: if this process or one of a job received SIGTERM.
    """
    crew, waiting = _Crew(at_once, should_stop), iter(jobs)
    with on_sigterm(crew.stop):
        try:
            while True:
                while crew.has_room and (job := next(waiting, None)) is not None:
                    on_start(job)
                    crew.start(job)
                if not crew.running:
                    break
                yield from crew.ended()
        finally:
            crew.end()
    if crew.is_stopped:
        place = crew.stopped_at or "the study"
        raise Preempted(
            f"told to stop (SIGTERM) / what {place} has saved is kept / the same command carries on from there"
        )


@dataclass
class _Crew:
    """The processes that are at work.

    Attributes:
        at_once: most of them.
        should_stop: whether a job is to be stopped; asked of none if None.
        running: slot → job and process.
        is_stopped: whether all were told to stop.
        stopped_at: the folder of a run that was.
        told: folders of the jobs that were stopped alone.
    """

    at_once: int
    should_stop: Callable[[StudyJob], bool] | None = None
    running: dict[int, tuple[StudyJob, BaseProcess]] = field(default_factory=dict)
    is_stopped: bool = False
    stopped_at: Path | None = None
    told: set[Path] = field(default_factory=set)

    @property
    def has_room(self) -> bool:
        """Whether another process may start."""
        return len(self.running) < self.at_once and not self.is_stopped

    def start(self, job: StudyJob) -> None:
        """Start a job in the first free slot."""
        slot = next(number for number in range(self.at_once) if number not in self.running)
        cores = cores_of(slot, self.at_once) if self.at_once > 1 else None
        project = {"WANDB_PROJECT": job.folder.parents[1].name} if len(job.folder.parents) > 1 else {}
        with _threads(cores):
            process = _context().Process(  # type: ignore[attr-defined]  # typeshed has it on subclasses alone
                target=_run_job, args=(job, {**project, **os.environ}, cores)
            )
            process.start()
        self.running[slot] = job, process

    def ended(self) -> Iterator[tuple[StudyJob, int]]:
        """Wait until a process ends; yield the jobs that have, with their exit codes."""
        sentinels = [process.sentinel for _, process in self.running.values()]
        while not wait(sentinels, _ASK_EVERY if self.should_stop else None):
            self._stop_some()
        for slot, (job, process) in list(self.running.items()):
            if process.exitcode is None:
                continue
            del self.running[slot]
            was_told = job.folder in self.told
            if self.is_stopped or (process.exitcode in _STOPPED and not was_told):
                self.stopped_at = job.folder
                self.stop()
            else:
                yield job, process.exitcode

    def _stop_some(self) -> None:
        """Tell the processes to stop whose jobs are not worth going on with, once each."""
        for job, process in self.running.values():
            if self.should_stop and job.folder not in self.told and self.should_stop(job):
                self.told.add(job.folder)
                process.terminate()

    def stop(self) -> None:
        """Tell all processes to stop, once each, and start no others."""
        if not self.is_stopped:
            self.is_stopped = True
            for _, process in self.running.values():
                process.terminate()

    def end(self) -> None:
        """Stop what is still at work, as after Ctrl-C, and wait for it; a second Ctrl-C kills it."""
        if self.running:
            self.stop()
        try:
            for _, process in self.running.values():
                process.join()
        except KeyboardInterrupt:
            for _, process in self.running.values():
                process.kill()
            raise


def _context() -> BaseContext:
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    context.set_forkserver_preload(_PRELOADED)
    return context


def cores_of(slot: int, at_once: int) -> list[int]:
    """Return the cores of one of several processes at a time: equal shares, or one core that some of them share."""
    if not hasattr(os, "sched_getaffinity"):  # macOS
        return list(range(max((os.cpu_count() or 1) // at_once, 1)))
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // at_once
    return cores[slot * share : (slot + 1) * share] if share else [cores[slot % len(cores)]]


@contextmanager
def _threads(cores: Sequence[int] | None) -> Iterator[None]:
    """Set the threads of a process that starts in this context, which libraries read when they are loaded."""
    before = os.environ.get("OMP_NUM_THREADS")
    if cores is not None:
        os.environ["OMP_NUM_THREADS"] = str(len(cores))
    try:
        yield
    finally:
        if cores is not None:
            os.environ.pop("OMP_NUM_THREADS")
            os.environ.update({} if before is None else {"OMP_NUM_THREADS": before})


def _run_job(job: StudyJob, environment: Mapping[str, str], cores: Sequence[int] | None) -> None:
    """Do a job in this process, which ends with its exit code."""
    os.environ.update(environment)
    if job.log is not None:
        _redirect(job.log)
    if cores is not None:
        _pin(cores)
    function: Callable[[Sequence[str]], int] = resolve_name(job.entry)
    code = function(list(job.arguments))
    if code == 0 and job.folder.is_dir():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        kib = peak if sys.platform != "darwin" else peak / 1024
        keep_peak(job.folder / MEMORY_FILE, round(kib / 1024))
    sys.exit(code)


def keep_peak(file: Path, mib: int) -> None:
    """Write a run's peak memory into a file, unless an earlier stretch of the run took more."""
    write_atomically(file, f"{max(mib, read_peak(file) or 0)}\n")


def read_peak(file: Path) -> int | None:
    """Return the peak memory in a file, in MiB; None where it is missing or damaged."""
    try:
        return int(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _redirect(log: Path) -> None:
    """Append what this process and its children print to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())


def _pin(cores: Sequence[int]) -> None:
    """Keep this process to its cores, with a thread on each."""
    import torch

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(len(cores))
