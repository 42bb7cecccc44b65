"""Write a run's report, or compare several:  python scripts/make_report.py runs/x [runs/y …] [--output DIR]"""

import sys

from distil_nlp.cli import make_report

if __name__ == "__main__":
    sys.exit(make_report())
