"""Runs that are killed, and machines that run out: what is promised in docs/reliability.md."""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from tests.helpers import ROOT
from tests.helpers.runs import Place
from tests.workers.killed import SPOTS

KILLS = 5
COMMAND = (
    "teacher.finetune={max_steps: 4, save_steps: 2}",
    "teacher.cache={folder: CACHES}",
    "evaluation.baselines=[no_distillation]",
)


def start(place: Path, spot: str, nth: int, delay: float, log: Path) -> int:
    """One start of the same command; its exit code, negative if a signal ended it."""
    recipe = Place(place).command(*(one.replace("CACHES", str(place / "caches")) for one in COMMAND))
    command = [sys.executable, "-m", "tests.workers.killed", spot, str(nth), str(delay), str(log), *recipe]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": str(place / "datasets")}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, start_new_session=True)
    assert process.returncode in (0, -signal.SIGKILL), process.stderr[-3000:]
    return process.returncode


def left_behind(place: Path) -> dict[str, bytes]:
    """What must not depend on whether the run was killed: weights of student and teacher, outputs of the baseline."""
    kept = sorted([*place.glob("run/student/*.safetensors"), *place.glob("teachers/*/model/*.safetensors")])
    assert len(kept) == 2
    found = {f"{path.parent.name}/{path.name}": path.read_bytes() for path in kept}
    results = json.loads((place / "run" / "results.json").read_text())
    found["metrics"] = json.dumps([results["student"]["metrics"], results["teacher"]["metrics"]]).encode()
    (outputs,) = place.glob("run/variants/*/outputs.npz")
    return found | {"outputs": outputs.read_bytes()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(what an uninterrupted run leaves, spot → seconds that it takes each time)."""
    place = tmp_path_factory.mktemp("whole")
    Place(place).prepare()
    assert start(place, "every", 0, 0, place / "log") == 0
    times: dict[str, list[float]] = {}
    for word, spot, seconds in (line.split("/") for line in (place / "log").read_text().splitlines()):
        if word == "leave":
            times.setdefault(spot, []).append(float(seconds))
    return left_behind(place), times


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("spot", SPOTS)
def test_a_killed_run_carries_on_and_ends_with_the_same_weights(tmp_path, spot, whole, capsys):
    """Prevents a half-written file that is taken for whole, a step taken twice, and a night lost: five kills inside the
    spot, at moments drawn at random, and what is left is that of the uninterrupted run, bit for bit."""
    expected, times = whole
    assert times.keys() == SPOTS.keys()
    draw, log, inside, starts = random.Random(spot), tmp_path / "log", [], 0
    place = Place(tmp_path / "0").prepare().folder
    while len(inside) < KILLS:
        starts += 1
        assert starts < 10 * KILLS, "the kills do not hit"
        log.write_text("")
        if spot == "student’s step" and not (place / "run" / "recipe.yaml").exists():
            start(place, "cache shard", 1, 0.0, log)  # the teacher is done
        delay = draw.uniform(0, median(times[spot]))
        code = start(place, spot, min(draw.choice([1, 1, 2, 3]), len(times[spot])), delay, log)
        last = log.read_text().splitlines()[-1:]
        if code == 0:
            assert left_behind(place) == expected
            place = Place(tmp_path / str(starts)).prepare().folder
        elif last and last[0].startswith(f"enter/{spot}/"):
            inside.append(f"{last[0].split('/')[-1]}th + {1000 * delay:.1f} ms")
    assert start(place, spot, 0, 0, log) == 0
    assert left_behind(place) == expected
    with capsys.disabled():
        print(f"\n{spot}: killed inside at {', '.join(inside)}")
