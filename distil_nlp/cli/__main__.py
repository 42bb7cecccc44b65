"""`python -m distil_nlp.cli` is the console command too, as `python -m distil_nlp` is."""

import sys

from distil_nlp.cli import main

if __name__ == "__main__":
    sys.exit(main())
