"""Scores a model on GLUE:  python scripts/evaluate_glue.py runs/x/student --mode score --tasks mrpc --data DATA"""

import sys

from distil_nlp.cli import evaluate_glue

if __name__ == "__main__":
    sys.exit(evaluate_glue())
