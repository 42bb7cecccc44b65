"""What must not be published: where files lie on somebody's machine, and tokens."""

from __future__ import annotations

import re
from pathlib import Path, PureWindowsPath
from typing import Any

_FOLDERS = re.compile(r"""(?<![\w:/\\.~<-])(?:file:/{0,2})?(?:~|[A-Za-z]:)?[/\\](?:[^/\\\s"'`<>|()]+[/\\])+""")
"""The folders in front of an absolute path's last component, in running text."""
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}")


def hide(tree: Any) -> Any:
    """A copy of `results.json` or a part of it to be published: each local path by its last component, tokens gone.

    Relative paths count as local if they exist, lead upwards, or have more parts than a name on the Hub can have. Class
    names (`labels`) are left as they are.
    """
    if isinstance(tree, dict):
        kept = {key: one for key, one in tree.items() if not str(key).endswith("token")}
        return {key: one if key == "labels" else hide(one) for key, one in kept.items()}
    if isinstance(tree, list | tuple):
        return [hide(one) for one in tree]
    if not isinstance(tree, str):
        return tree
    return last_component(tree) if _is_local(tree) else hide_in_text(tree)


def hide_in_text(text: str) -> str:
    """A text with absolute paths cut down to their last component, and tokens masked."""
    return _TOKEN.sub("hf_…", _FOLDERS.sub("", text))


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
