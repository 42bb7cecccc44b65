"""Two real processes over gloo give what one process gives."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from distil_nlp.signals.recorder import PROJECTIONS
from tests.helpers.processes import forked_pair, launch, torchrun
from tests.helpers.runs import Place
from tests.workers.sharded import steps
from tests.workers.steps import train

DDP = "DistributedDataParallel"


def two_processes(tmp_path: Path, wrapper: str = DDP, **arguments: Any) -> dict:
    """What two processes found; fails, rather than passing as one, if there were not two in that wrapper."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir(exist_ok=True)
    forked_pair("-m", "tests.workers.steps", str(out), json.dumps(arguments))
    found = json.loads(out.read_text())
    assert (found["world_size"], found["wrapper"]) == (2, wrapper)
    return found


CUTS = {
    "thirty-steps": (120, (8, 1), (4, 1)),
    "accumulated": (24, (8, 1), (2, 2)),
    "uneven-last-batch": (21, (6, 1), (3, 1)),
}
"""Rows, and (batch, accumulation) of one process and of each of two."""


def check_equals_one(tmp_path: Path, cut: str, wrapper: str, **arguments: Any) -> dict:
    """Two processes give the curves and scores of one; what they found."""
    rows, (batch, accumulation), each = CUTS[cut]
    same = {name: arguments.get(name) for name in ("balance", "weighting")}
    one = train(tmp_path / "one", batch, accumulation, rows, **same)
    two = two_processes(tmp_path, wrapper, batch=each[0], accumulation=each[1], rows=rows, **arguments)
    assert two["tokens"] == one["tokens"]
    for name, values in one["curves"].items():
        assert two["curves"][name] == pytest.approx(values, rel=2e-4), name
    for name, value in one["eval"].items():
        assert two["eval"][name] == pytest.approx(value, rel=2e-4), name
    return two


@pytest.mark.integration
@pytest.mark.parametrize("cut", ["accumulated", "thirty-steps", "uneven-last-batch"])
def test_two_processes_equal_one(tmp_path, cut):
    """Prevents gradients that are not reduced, counted per process, or taken from repeated filler rows; and an exchange
    at every micro-step of an accumulated step, twice the network for the same gradient."""
    two = check_equals_one(tmp_path, cut, DDP)
    assert two["exchanges"] == two["steps"]


@pytest.mark.integration
def test_two_processes_balance_the_terms_as_one(tmp_path):
    """Prevents shares that each process follows by its own rows, until the students drift apart."""
    check_equals_one(tmp_path, "accumulated", DDP, balance="uncertainty")


@pytest.mark.integration
@pytest.mark.parametrize("weighting", ["correctness", "student_uncertainty"])
def test_two_processes_weigh_their_teachers_as_one(tmp_path, weighting):
    """Prevents weights that depend on the other rows of a process, and labels of other tokens."""
    check_equals_one(tmp_path, "uneven-last-batch", DDP, weighting=weighting)


@pytest.mark.integration
def test_two_nodes_equal_one_process(tmp_path):
    """Prevents ranks and devices that are told by the local rank alone: two launchers that meet over a socket."""
    out = tmp_path / "two" / "found.json"
    out.parent.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meet = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
    worker = ["-m", "tests.workers.steps", str(out), json.dumps({"batch": 4, "accumulation": 1, "rows": 24})]
    nodes = [launch(*meet, "--node_rank", str(rank), *worker) for rank in (0, 1)]
    for node in nodes:
        assert node.wait(300) == 0, node.stderr.read()[-3000:]
    found, one = json.loads(out.read_text()), train(tmp_path / "one", 8, 1, 24)
    assert (found["world_size"], found["wrapper"]) == (2, DDP)
    assert found["curves"]["loss"] == pytest.approx(one["curves"]["loss"], rel=2e-4)


@pytest.mark.integration
def test_two_processes_fill_one_cache_and_read_it(tmp_path):
    """Prevents processes that write each other's shards, or read outputs of rows that are not theirs."""
    caches = str(tmp_path / "caches")
    two = two_processes(tmp_path, batch=3, accumulation=1, rows=21, caches=caches)
    (folder,) = Path(caches).iterdir()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    one = train(tmp_path / "one", 6, 1, 21)
    for name, values in one["curves"].items():
        assert two["curves"][name] == pytest.approx(values, rel=2e-4), name
    again = train(tmp_path / "again", 6, 1, 21, caches)
    assert again["curves"]["loss"] == pytest.approx(one["curves"]["loss"], rel=2e-4)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == before


@pytest.mark.integration
def test_sharded_parameters_give_the_gradient_and_losses_of_one_process(tmp_path):
    """Prevents a vocabulary, projections or an embedding that are read where their shards are not together; for 30
    steps."""
    out = tmp_path / "two" / "found.pt"
    out.parent.mkdir()
    forked_pair("-m", "tests.workers.sharded", str(out))
    (found, losses), (expected, alone) = torch.load(out), steps(tmp_path / "one")
    assert found.keys() == expected.keys()
    assert any(name.startswith(PROJECTIONS) for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=2e-6)
    assert len(losses) == 30
    assert losses == pytest.approx(alone, rel=2e-4)


def check_a_whole_run(tmp_path: Path, *overrides: str) -> None:
    """Teacher and student of one command, trained and scored by two processes as by one."""
    one, two = Place(tmp_path / "one"), Place(tmp_path / "two")
    for place in (one, two):
        place.prepare()
    assert one.run("training.per_device_train_batch_size=4", "teacher.finetune={max_steps: 2}") == 0
    command = two.command("training.per_device_train_batch_size=2", "teacher.finetune={max_steps: 2}", *overrides)
    printed = torchrun("scripts/distill.py", *command)
    assert printed.strip().splitlines()[-1] == str(two.out / "results.json")
    assert printed.count("training the student") == 1
    assert two.results["environment"]["processes"] == 2
    for name in ("tokens", "tokens_forward", "tokens_backward"):
        assert two.results["training"][name] == one.results["training"][name]
    assert two.results["student"]["metrics"] == one.results["student"]["metrics"]
    for name, value in one.results["training"]["final_terms"].items():
        assert two.results["training"]["final_terms"][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


@pytest.mark.integration
def test_a_whole_run_in_two_processes(tmp_path):
    """Prevents two processes that write over each other, speak at once, or score filler rows."""
    check_a_whole_run(tmp_path)


@pytest.mark.integration
def test_another_number_of_processes_goes_on_with_the_same_rows(tmp_path):
    """Prevents rows learnt from twice, or never, where a run goes on with other processes than it began with."""
    whole = train(tmp_path / "whole", 6, 1, 21)
    stopped = tmp_path / "two" / "run"
    trained = train(stopped, 6, 1, 21, stop_at=3)
    assert trained["steps"] == 3
    two = two_processes(tmp_path, batch=3, accumulation=1, rows=21)
    assert two["steps"] == whole["steps"] == 8
    for name, values in whole["curves"].items():
        assert two["curves"][name] == pytest.approx(values, rel=2e-4), name
