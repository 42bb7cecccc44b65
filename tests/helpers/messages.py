"""A command's messages as one line each."""

import re


def one_line(stderr: str) -> str:
    """Join the labelled lines of each error by ` / ` again, as `str(error)` has them."""
    text = re.sub(r"\n  expected  ", ": expected ", stderr)
    text = re.sub(r"\n  got       ", " / got ", text)
    return re.sub(r"\n  (why|fix)       ", " / ", text)
