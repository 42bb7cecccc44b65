"""`python -m distil_nlp`, and `accelerate launch -m distil_nlp`, are the console command."""

import sys

from distil_nlp.cli import main

if __name__ == "__main__":
    sys.exit(main())
