"""A tokenizer cut down to some of its tokens, as a tokenizer of the same class."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from distil_nlp.errors import UserError, listed
from distil_nlp.models.vocabulary.token_models import KINDS, is_single

_FILE = "tokenizer.json"


@dataclass(frozen=True)
class SmallerTokenizer:
    """A tokenizer of fewer tokens.

    Attributes:
        tokenizer: reads any text that the larger one reads, in more tokens.
        kept: for each of its ids the id of the same token in the larger one, in rising order.
    """

    tokenizer: PreTrainedTokenizerBase
    kept: tuple[int, ...]


def trim_tokenizer(tokenizer: PreTrainedTokenizerBase, wanted: Iterable[int]) -> SmallerTokenizer:
    """Return a tokenizer that knows the wanted tokens, and those without which some text could no longer be read.

    These are special and added tokens, single characters and bytes, and for BPE the parts that tokens are merged of.
    Kept tokens keep their order, so that special tokens at the front keep their ids.

    Args:
        tokenizer: a fast one, of WordPiece, BPE or Unigram; it stays as it is.
        wanted: ids of tokens.

    Raises:
        UserError: for a slow tokenizer, or one of another kind.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / _FILE
        if not path.is_file():
            raise _unknown_kind(f"{type(tokenizer).__name__} without {_FILE}")
        content = json.loads(path.read_text(encoding="utf-8"))
        smaller, kept = _cut(content, set(wanted))
        for file in Path(folder).iterdir():
            if file.name not in (_FILE, "tokenizer_config.json", "chat_template.jinja"):
                file.unlink()  # vocabularies in forms of their own
        path.write_text(json.dumps(smaller, ensure_ascii=False), encoding="utf-8")
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found.name_or_path = tokenizer.name_or_path
    return SmallerTokenizer(found, kept)


def _unknown_kind(got: str) -> UserError:
    return UserError(
        "student.vocabulary",
        f"a fast tokenizer of {listed(KINDS)}",
        got,
        why="its file is cut down to fewer tokens",
        fix="leave student.vocabulary out, or take a teacher with such a tokenizer.json",
    )


def _cut(content: dict[str, Any], wanted: set[int]) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Return a smaller `tokenizer.json`, and the old id of each new one."""
    model = content["model"]
    if model.get("type") not in KINDS:
        raise _unknown_kind(str(model.get("type")))
    kind, added = KINDS[model["type"]], content.get("added_tokens") or []
    tokens = kind.tokens(model)
    ids = {token: number for number, token in enumerate(tokens)} | {one["content"]: one["id"] for one in added}
    prefix = model.get("continuing_subword_prefix") or ""
    keep = {one["content"] for one in added} | {model.get("unk_token")}
    keep |= {token for token in tokens if is_single(token, prefix) or ids[token] in wanted}
    keep |= kind.closure(model, keep & ids.keys())
    old = sorted(ids[token] for token in keep & ids.keys())
    new = {number: place for place, number in enumerate(old)}
    kept = sorted(keep & set(tokens), key=ids.__getitem__)
    own = [one | {"id": new[one["id"]]} for one in added]
    smaller = content | {"model": kind.cut(model, kept), "added_tokens": own}
    if content.get("post_processor"):
        smaller["post_processor"] = _renumbered(content["post_processor"], new)
    return smaller, tuple(old)


def _renumbered(part: Any, new: Mapping[int, int], key: str = "") -> Any:
    """Return a post-processor with new ids: those of templates, and the pairs of a token and its id."""
    if isinstance(part, dict):
        return {name: _renumbered(value, new, name) for name, value in part.items()}
    if isinstance(part, list) and key == "ids":
        return [new[number] for number in part]
    if isinstance(part, list) and key in ("sep", "cls") and len(part) == 2:
        return [part[0], new[part[1]]]
    return [_renumbered(value, new) for value in part] if isinstance(part, list) else part
