"""Distil with one objective after another, and compare them:  python scripts/study.py STUDY [section.key=value …]"""

import sys

from distil_nlp.cli import study

if __name__ == "__main__":
    sys.exit(study())
