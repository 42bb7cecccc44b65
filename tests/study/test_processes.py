"""Processes of a study: several at a time, stopped together, each with its cores and its log."""

import os
import signal
import sys
import time

import pytest

from distil_nlp.errors import Preempted
from distil_nlp.study.processes import MEMORY_FILE, StudyJob, cores_of, keep_peak, read_peak, run_jobs

pytestmark = pytest.mark.integration  # the server of processes imports torch first
HERE = "tests.study.test_processes"


def work(arguments):
    """Write the cores into a file and print a line; a job named `fail` fails, one named `slow` takes long."""
    name, folder = arguments
    print(f"I am {name}", flush=True)
    with open(f"{folder}/{name}", "w") as file:
        file.write(f"{sorted(os.sched_getaffinity(0))} {os.environ.get('WANDB_PROJECT')}")
    if name == "slow":
        time.sleep(120)
    return 3 if name == "fail" else 0


def save_first(arguments):
    """Save something on SIGTERM, and end as a run does."""

    def stop(*_):
        with open(arguments[0], "w") as file:
            file.write("saved")
        sys.exit(143)

    signal.signal(signal.SIGTERM, stop)
    os.kill(int(arguments[1]) or os.getpid(), getattr(signal, arguments[2]))
    time.sleep(120)


def job(tmp_path, name, entry="work", arguments=None):
    folder = tmp_path / "study" / "task" / name
    folder.mkdir(parents=True)
    arguments = arguments or [name, str(tmp_path)]
    return StudyJob(name, arguments, folder, tmp_path / "logs" / f"{name}.log", f"{HERE}:{entry}")


def test_a_job_that_fails_stops_no_other(tmp_path):
    """Prevents a night that ends at the first cell that fails, and lines of several runs in one another."""
    jobs = [job(tmp_path, name) for name in ("one", "fail", "two")]
    started = []
    codes = {done.name: code for done, code in run_jobs(jobs, 2, lambda one: started.append(one.name))}
    assert codes == {"one": 0, "fail": 3, "two": 0}
    assert started == ["one", "fail", "two"]
    for name in codes:
        assert (tmp_path / "logs" / f"{name}.log").read_text().count("I am") == 1
    assert int((jobs[0].folder / MEMORY_FILE).read_text()) > 10
    assert not (jobs[1].folder / MEMORY_FILE).exists()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores cannot be chosen here")
def test_jobs_at_a_time_share_the_cores(tmp_path):
    """Prevents processes that all use all cores, and are slower together than one after the other."""
    list(run_jobs([job(tmp_path, "one"), job(tmp_path, "two")], 2))
    cores = sorted(os.sched_getaffinity(0))
    seen = {(tmp_path / name).read_text() for name in ("one", "two")}
    assert seen == {f"{cores_of(slot, 2)} study" for slot in (0, 1)}
    assert all(set(cores_of(slot, 3)) <= set(cores) for slot in range(3))
    assert {*cores_of(0, 2), *cores_of(1, 2)} <= set(cores)


@pytest.mark.parametrize("receiver", ["parent", "job"])
def test_sigterm_stops_all_and_is_waited_for(tmp_path, receiver):
    """Prevents runs that train on when their study has been told to stop, and a checkpoint that is cut short."""
    before, saved = signal.getsignal(signal.SIGTERM), tmp_path / "saved"
    target = os.getpid() if receiver == "parent" else 0
    jobs = [job(tmp_path, "told", "save_first", [str(saved), str(target), "SIGTERM"]), job(tmp_path, "later")]
    with pytest.raises(Preempted, match=r"what .*told has saved is kept / the same command carries on"):
        list(run_jobs(jobs, 1))
    assert saved.exists()
    assert not (tmp_path / "later").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_ctrl_c_stops_all(tmp_path):
    """Prevents processes that go on training when the terminal has its prompt back."""
    saved = tmp_path / "saved"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell ignores it
    with pytest.raises(KeyboardInterrupt):
        list(run_jobs([job(tmp_path, "told", "save_first", [str(saved), str(os.getpid()), "SIGINT"])], 2))
    signal.signal(signal.SIGINT, before)
    assert saved.exists()


def test_the_peak_of_a_run_is_that_of_its_largest_stretch(tmp_path):
    """Prevents a run that needed two gigabytes from being told by the seconds in which it was timed again."""
    file = tmp_path / MEMORY_FILE
    keep_peak(file, 2048)
    keep_peak(file, 700)
    assert read_peak(file) == 2048
    keep_peak(file, 3000)
    assert read_peak(file) == 3000
    file.write_text("damaged")
    assert read_peak(file) is None
