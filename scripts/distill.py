"""Distil a teacher into a student:  accelerate launch scripts/distill.py RECIPE [section.key=value …]"""

import sys

from distil_nlp.cli import distill

if __name__ == "__main__":
    sys.exit(distill())
