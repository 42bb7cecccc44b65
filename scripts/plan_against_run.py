"""Plan a recipe, run it, and compare the two, stage by stage: the table of docs/planning.md.

Both run one after the other, on the same machine with the same threads. The folder of the run must be new, and so must
that of the teacher, or the run would find them done.

With --cpu both are told in CPU seconds of one thread (OMP_NUM_THREADS=1), not in time on the wall, which other load on
the machine changes more. Measuring latencies waits for the clock on the wall: leave it out (evaluation.efficiency=off).

Example:
    python scripts/plan_against_run.py recipes/quickstart.yaml training.output_dir=/tmp/run teacher.folder=/tmp/teachers
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

_STAGE = re.compile(r"step \d+ of \d+: (.*)")
_GROUPS = {
    "loading": ("start",),
    "teacher": ("teacher", "link"),
    "students": ("cache", "student", "baseline"),
    "measuring": (),
    "comparing and report": ("report",),
}


_CPU_CLOCK = "import time; time.perf_counter = time.process_time; "
_MAIN = "import sys; from distil_nlp.cli import main; sys.exit(main(sys.argv[1:]))"


def planned(arguments: list[str], by_cpu: bool) -> dict[str, float]:
    """Return the planned seconds of each group of stages."""
    command = [sys.executable, "-c", _CPU_CLOCK * by_cpu + _MAIN, "plan", "--json", *arguments]
    stages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["stages"]
    seconds = dict.fromkeys(_GROUPS, 0.0)
    for stage in stages:
        seconds[_group_of(stage)] += stage["seconds"]
    return seconds


def _group_of(stage: dict) -> str:
    named = {
        "scoring the teacher": "teacher",
        "scoring students": "students",
        "probe": "students",
        "measuring time and memory": "measuring",
        "comparing layers": "comparing and report",
    }
    return named.get(stage["name"]) or next(name for name, kinds in _GROUPS.items() if stage["kind"] in kinds)


def taken(arguments: list[str], by_cpu: bool) -> dict[str, float]:
    """Run the recipe, and return the seconds of each group of stages."""
    seconds, group = dict.fromkeys(_GROUPS, 0.0), "loading"
    command = [sys.executable, "-c", _MAIN, "distill", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        clock = _cpu_clock(process.pid) if by_cpu else time.perf_counter
        mark = 0.0 if by_cpu else clock()
        for line in process.stdout:
            sys.stderr.write(line)
            now = clock()
            if found := _STAGE.match(line):
                seconds[group] += now - mark
                group, mark = _logged_group(found[1]), now
        seconds[group] += now - mark
    if process.returncode:
        raise SystemExit(process.returncode)
    return seconds


def _cpu_clock(pid: int) -> Callable[[], float]:
    """Return a function that tells the CPU seconds of a process."""
    process = psutil.Process(pid)

    def clock() -> float:
        times = process.cpu_times()
        return times.user + times.system

    return clock


def _logged_group(name: str) -> str:
    """Return the group of a stage by the words that the run logs."""
    if name.startswith("training"):
        return "students"
    if name.startswith("measuring"):
        return "measuring"
    return "comparing and report" if name.startswith("comparing") else "teacher"


def main(arguments: list[str]) -> None:
    """Print the table."""
    by_cpu, arguments = "--cpu" in arguments, [one for one in arguments if one != "--cpu"]
    before, real = planned(arguments, by_cpu), taken(arguments, by_cpu)
    print("| stage | planned, s | taken, s | planned ÷ taken |\n|---|---:|---:|---:|")
    for name in [*_GROUPS, "together"]:
        own, other = (sum(one.values()) if name == "together" else one[name] for one in (before, real))
        print(f"| {name} | {own:.1f} | {other:.1f} | {own / other:.2f} |" if other else f"| {name} | {own:.1f} | – | |")


if __name__ == "__main__":
    main(sys.argv[1:])
