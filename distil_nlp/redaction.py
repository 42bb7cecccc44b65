"""Redaction of secrets and local paths: tokens and passwords, the home folder, and other people's folders.

Three degrees: messages show no token and `~` for the home folder (`redact`); local files such as `results.json` have
`~` too, so that runs can continue from them; published files name a local path by its last component (`redact_paths`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PureWindowsPath
from typing import Any

_FOLDERS = re.compile(r"""(?<![\w:/\\.~<-])(?:file:/{0,2})?(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s"'`<>|()]+[/\\])+""")
"""Matches the folders in front of an absolute path's last component, in running text."""
_SECRETS = (
    (re.compile(r"(?<![A-Za-z0-9])((?:hf|api_org|gh[pousr])_|sk-(?:proj-)?)[A-Za-z0-9]{20,}"), r"\1…"),
    (re.compile(r"(github_pat_|glpat-)[\w-]{20,}"), r"\1…"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), r"\1…"),
    (re.compile(r"(://)[^/\s@:]*:[^/\s@]+(@)"), r"\1…\2"),
    (re.compile(r"([?&][\w-]*(?:token|key|sig|signature|secret|password|credential)=)[^&\s\"']+", re.I), r"\1…"),
    (re.compile(r"(Bearer )[^\s\"']+"), r"\1…"),
)
"""Patterns of tokens by their beginnings, passwords in addresses, keys in queries and headers; replacements."""


def redact_paths(tree: Any) -> Any:
    """Return a copy of `results.json`, or of a part, for publication: last components of local paths, no tokens.

    Relative paths count as local if they exist, lead upwards, or have more parts than a name on the Hub can have. Class
    names (`labels`) are left as they are.
    """
    if isinstance(tree, dict):
        kept = {key: value for key, value in tree.items() if not str(key).endswith("token")}
        return {key: value if key == "labels" else redact_paths(value) for key, value in kept.items()}
    if isinstance(tree, list | tuple):
        return [redact_paths(item) for item in tree]
    if not isinstance(tree, str):
        return tree
    return last_component(tree) if _is_local(tree) else redact_paths_in_text(tree)


def redact_paths_in_text(text: str) -> str:
    """Cut absolute paths in a text down to their last component, and mask tokens."""
    return mask_secrets(_FOLDERS.sub("", text))


def mask_secrets(text: str) -> str:
    """Mask tokens, and passwords in addresses."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def abbreviate_home(tree: Any) -> Any:
    """Return a text, or a copy of nested dicts and lists of texts, with `~` for the home folder."""
    if isinstance(tree, dict):
        return {key: abbreviate_home(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [abbreviate_home(item) for item in tree]
    home = os.path.expanduser("~")
    if not isinstance(tree, str) or len(Path(home).parts) < 2:  # "/" is home to some containers
        return tree
    spellings = {home, os.path.realpath(home)}
    return re.sub(rf"(?<![\w.~-])(?:{'|'.join(map(re.escape, spellings))})(?![\w-]|\.\w)", "~", tree)


def expand_home(text: str) -> str:
    """Return a path that begins with `~/` with the home folder written out; other texts as they are."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def redact(text: str) -> str:
    """Redact a message for a terminal or a log: no tokens, and `~` for the home folder."""
    return abbreviate_home(mask_secrets(text))


def last_component(path: str) -> str:
    """Return `mrpc` for `/home/me/data/mrpc/`; Windows paths too."""
    return PureWindowsPath(path).name or path


def _is_local(text: str) -> bool:
    if text.startswith("file:"):
        return True
    if "\n" in text or "://" in text:
        return False
    windows = PureWindowsPath(text)  # takes both kinds of slash
    is_path = windows.drive or windows.root or text.startswith(("~", "./", "../"))
    is_path = is_path or (text.count("/") > 1 and " " not in text)
    return bool(is_path) or ("/" in text and len(text) < 1000 and Path(text).exists())
