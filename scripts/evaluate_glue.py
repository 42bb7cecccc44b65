"""Score a model on GLUE.

As it is, on its own task:          python scripts/evaluate_glue.py runs/x/student --mode score --tasks mrpc
Fine-tuned on each, several seeds:  python scripts/evaluate_glue.py runs/x/student --mode finetune --tasks all --seeds 5
"""

import sys

from distil_nlp.cli import evaluate_glue

if __name__ == "__main__":
    sys.exit(evaluate_glue())
