"""Print what matters of finished runs: verdicts, scores, and whether distillation paid.

python skills/distil-encoder/scripts/read_results.py RUN [RUN …]
"""

import sys
from pathlib import Path

from distil_nlp.reporting.verdicts import verdict_lines, verdicts
from distil_nlp.results import read_runs

for run in read_runs([Path(name) for name in sys.argv[1:]]):
    metric = run.metric
    print(f"{run.folder}: {run.task}, {metric}")
    for role in ("teacher", "student", "baselines.no_distillation", "baselines.copied_only", "baselines.majority"):
        score = (run.get(f"{role}.metrics") or {}).get(metric)
        if score is not None:
            print(f"  {role.removeprefix('baselines.'):<18}{score:.3f}")
    print(verdict_lines(verdicts(run)))
