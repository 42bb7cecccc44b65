"""`distil-nlp launch`: accelerate's launcher with values for all that it would warn about, and `distil-nlp env`."""

import os
import subprocess

import pytest
import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

import distil_nlp
from distil_nlp import cli
from distil_nlp.utils.environment import cpu_cores


class Replaced(Exception):
    """The process would be another one now."""


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """The commands and environments that replaced the process, on a machine without a configuration of accelerate."""
    calls = []

    def replace(file, command, environment):
        calls.append((command, environment))
        raise Replaced

    monkeypatch.setattr(os, "execvpe", replace)
    monkeypatch.setattr("accelerate.commands.config.config_args.default_config_file", str(tmp_path / "none.yaml"))
    monkeypatch.setattr("accelerate.commands.launch.default_config_file", str(tmp_path / "none.yaml"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return calls


@pytest.fixture
def gpus(monkeypatch):
    """Two accelerators, as far as torch says."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)


def launch(*arguments):
    with pytest.raises(Replaced):
        cli.main(["launch", *arguments])


@pytest.mark.parametrize("options", [["--cpu"], ["--cpu", "--num_processes", "1"], ["--num_machines=1", "--cpu"]])
def test_one_process_becomes_the_command_on_all_cores(launched, options, capfd):
    """Prevents accelerate's warnings, one thread of many cores, and an exit code that its launcher swallows."""
    launch(*options, "glue", "data.task=mrpc", "training.seed=1")
    (command, environment), *_ = launched
    assert command[1:] == ["-m", "distil_nlp", "distill", "glue", "data.task=mrpc", "training.seed=1"]
    assert environment["OMP_NUM_THREADS"] == str(cpu_cores())
    assert environment["ACCELERATE_MIXED_PRECISION"] == "no"
    assert capfd.readouterr() == ("", "")


def test_what_is_given_is_kept(launched, monkeypatch):
    """Prevents defaults in the place of the user's own options, variables and commands."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch("--cpu", "--mixed_precision", "bf16", "evaluate-glue", "runs/x/student", "--tasks", "rte")
    (command, environment), *_ = launched
    assert command[1:] == ["-m", "distil_nlp", "evaluate-glue", "runs/x/student", "--tasks", "rte"]
    assert (environment["OMP_NUM_THREADS"], environment["ACCELERATE_MIXED_PRECISION"]) == ("1", "bf16")
    monkeypatch.delenv("OMP_NUM_THREADS")
    launch("--cpu", "--num_cpu_threads_per_process=3", "glue")
    assert launched[1][1]["OMP_NUM_THREADS"] == "3"


def test_all_gpus_have_a_process(launched, gpus, monkeypatch):
    """Prevents one process on a machine of several GPUs, and a warning that there are more."""
    given = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", given.append)
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["launch", "glue"])
    (arguments,) = given
    assert (arguments.num_processes, arguments.num_machines, arguments.multi_gpu) == (2, 1, True)
    assert (arguments.mixed_precision, arguments.dynamo_backend) == ("no", "no")
    assert arguments.num_cpu_threads_per_process == max(cpu_cores() // 2, 1)
    assert [arguments.training_script, *arguments.training_script_args] == ["distil_nlp", "distill", "glue"]
    launch("--num_processes", "1", "glue")


def test_configurations_are_the_users_or_shipped(launched, monkeypatch):
    """Prevents defaults that a configuration does not have, and names of shipped ones that are not found."""
    given = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", given.append)
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main(["launch", "--config_file", "accelerate/ddp", "glue"])
    assert given[0].config_file.endswith("recipes/accelerate/ddp.yaml")
    assert given[0].num_processes is given[0].mixed_precision is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ChildFailedError("x", {0: ProcessFailure(0, 1, 143, "/none")}), 143),
        (ChildFailedError("x", {0: ProcessFailure(0, 1, -15, "/none")}), 143),
        (subprocess.CalledProcessError(2, "x"), 2),
    ],
)
def test_exit_codes_of_launched_processes(launched, gpus, monkeypatch, error, code):
    """Prevents a job queue that takes a preemption for a mistake, and tracebacks of the launcher below a message."""

    def fail(arguments):
        raise error

    monkeypatch.setattr("accelerate.commands.launch.launch_command", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main(["launch", "glue"])
    assert ended.value.code == code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cpu", "nowhere.yaml"], "expected a recipe at nowhere.yaml"),
        (["--cpu", "--num_processes", "2", "glue"], "torchrun --nproc_per_node 2 -m distil_nlp distill"),
    ],
)
def test_what_would_not_start_is_an_error(launched, capsys, arguments, message):
    """Prevents processes that all say the same, and one process where several were asked for."""
    assert cli.main(["launch", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_env_has_what_a_bug_report_needs(capsys, monkeypatch):
    """Prevents a bug report without versions, and one with a token in it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a1B2" * 9)
    assert cli.main(["env"]) == 0
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert facts["torch"] == torch.__version__
    assert facts["distil-nlp"] in (distil_nlp.__version__, "not installed")
    assert facts["OMP_NUM_THREADS"] == "7"
    assert {"transformers", "accelerate", "datasets", "huggingface-hub", "python", "platform", "CPU", "GPU"} <= set(
        facts
    )
    assert "hf_" not in str(facts)
