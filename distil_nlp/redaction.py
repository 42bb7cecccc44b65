"""What nobody else is to see: tokens and passwords, the home folder, and, of what is published, any local path.

Three degrees: messages show no token and `~` for the home folder (`quotable`); files that stay, such as `results.json`,
have `~` too, so that they can be carried on from; what is published names a local path by its last component (`hide`).
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PureWindowsPath
from typing import Any

_FOLDERS = re.compile(r"""(?<![\w:/\\.~<-])(?:file:/{0,2})?(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s"'`<>|()]+[/\\])+""")
"""The folders in front of an absolute path's last component, in running text."""
_SECRETS = (
    (re.compile(r"(?<![A-Za-z0-9])((?:hf|api_org|gh[pousr])_|sk-(?:proj-)?)[A-Za-z0-9]{20,}"), r"\1…"),
    (re.compile(r"(github_pat_|glpat-)[\w-]{20,}"), r"\1…"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"), r"\1…"),
    (re.compile(r"(://)[^/\s@:]*:[^/\s@]+(@)"), r"\1…\2"),
    (re.compile(r"([?&][\w-]*(?:token|key|sig|signature|secret|password|credential)=)[^&\s\"']+", re.I), r"\1…"),
    (re.compile(r"(Bearer )[^\s\"']+"), r"\1…"),
)
"""(tokens by their beginnings, passwords in addresses, keys in queries, headers) and what stays of them."""


def redact_paths(tree: Any) -> Any:
    """A copy of `results.json` or a part of it to be published: each local path by its last component, tokens gone.

    Relative paths count as local if they exist, lead upwards, or have more parts than a name on the Hub can have. Class
    names (`labels`) are left as they are.
    """
    if isinstance(tree, dict):
        kept = {key: one for key, one in tree.items() if not str(key).endswith("token")}
        return {key: one if key == "labels" else redact_paths(one) for key, one in kept.items()}
    if isinstance(tree, list | tuple):
        return [redact_paths(one) for one in tree]
    if not isinstance(tree, str):
        return tree
    return last_component(tree) if _is_local(tree) else redact_paths_in_text(tree)


def redact_paths_in_text(text: str) -> str:
    """A text with absolute paths cut down to their last component, and tokens masked."""
    return mask_secrets(_FOLDERS.sub("", text))


def mask_secrets(text: str) -> str:
    """A text with tokens, and passwords in addresses, masked."""
    for pattern, rest in _SECRETS:
        text = pattern.sub(rest, text)
    return text


def abbreviate_home(tree: Any) -> Any:
    """A copy of a text, or of all texts in nested dicts and lists, with `~` for the home folder."""
    if isinstance(tree, dict):
        return {key: abbreviate_home(one) for key, one in tree.items()}
    if isinstance(tree, list | tuple):
        return [abbreviate_home(one) for one in tree]
    home = os.path.expanduser("~")
    if not isinstance(tree, str) or len(Path(home).parts) < 2:  # "/" is home to some containers
        return tree
    places = {home, os.path.realpath(home)}
    return re.sub(rf"(?<![\w.~-])(?:{'|'.join(map(re.escape, places))})(?![\w-]|\.\w)", "~", tree)


def expand_home(text: str) -> str:
    """The other way round, for a path that begins with `~/`."""
    return os.path.expanduser(text) if text.startswith("~/") else text


def redact(text: str) -> str:
    """A message for a terminal or a log."""
    return abbreviate_home(mask_secrets(text))


def last_component(path: str) -> str:
    """`mrpc` of `/home/me/data/mrpc/`; also of a Windows path."""
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
