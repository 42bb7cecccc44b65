"""Upload a finished run to the Hub:  python scripts/push_to_hub.py runs/x --repo-id me/my-distilbert [--private]"""

import sys

from distil_nlp.cli import push_to_hub

if __name__ == "__main__":
    sys.exit(push_to_hub())
