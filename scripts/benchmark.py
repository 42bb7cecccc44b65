"""Time steps and inference beside other implementations:  python scripts/benchmark.py [--parts mlm attention …]"""

import sys

from distil_nlp.cli import benchmark

if __name__ == "__main__":
    sys.exit(benchmark())
