"""A tokenizer cut down to some of its tokens, as a tokenizer of the same class."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from distil_nlp.errors import UserError, listed
from distil_nlp.models.vocabulary.token_models import TOKEN_MODELS, TokenModelKind, is_one_character

_FILE = "tokenizer.json"
_KEPT_FILES = (_FILE, "tokenizer_config.json", "chat_template.jinja")


def trim_tokenizer(
    tokenizer: PreTrainedTokenizerBase, wanted: Sequence[int], size: int | None = None
) -> PreTrainedTokenizerBase:
    """Return a tokenizer that knows the wanted tokens, and those without which some text could no longer be read.

    These are special and added tokens, single characters and bytes, and for BPE the parts that tokens are merged of.
    Tokens keep their order, so that special ones at the front keep their ids; `kept_ids` tells the others'.

    Args:
        tokenizer: a fast one, of WordPiece, BPE or Unigram; it stays as it is.
        wanted: ids of tokens, those that are needed most first.
        size: number of tokens at most, of which as many are wanted ones as fit; None for all that are wanted.

    Raises:
        UserError: for a slow tokenizer or one of another kind, and for a size below that of the tokens that must stay.
    """
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / _FILE
        if not path.is_file():
            raise _unknown_kind(f"{type(tokenizer).__name__} without {_FILE}")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["model"].get("type") not in TOKEN_MODELS:
            raise _unknown_kind(str(content["model"].get("type")))
        for file in Path(folder).iterdir():
            if file.name not in _KEPT_FILES:
                file.unlink()  # vocabularies in forms of their own
        smaller = _TokenizerFile(content).cut(wanted, size)
        path.write_text(json.dumps(smaller, ensure_ascii=False), encoding="utf-8")
        found = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found.name_or_path = tokenizer.name_or_path
    return found


def kept_ids(large: PreTrainedTokenizerBase, small: PreTrainedTokenizerBase) -> list[int]:
    """Return for each id of a trimmed tokenizer the id of the same token in the one that it was made of."""
    ids, own = large.get_vocab(), small.get_vocab()
    return [ids[token] for token in sorted(own, key=own.__getitem__)]


def _unknown_kind(got: str) -> UserError:
    return UserError(
        "student.vocabulary",
        f"a fast tokenizer of {listed(TOKEN_MODELS)}",
        got,
        why="its file is cut down to fewer tokens",
        fix="leave student.vocabulary out, or take a teacher with such a tokenizer.json",
    )


class _TokenizerFile:
    """The content of a `tokenizer.json`."""

    def __init__(self, content: dict[str, Any]):
        self.content, self.model = content, content["model"]
        self.kind: TokenModelKind = TOKEN_MODELS[self.model["type"]]
        self.added: list[dict[str, Any]] = content.get("added_tokens") or []
        self.tokens = self.kind.tokens(self.model)
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        self.ids |= {one["content"]: one["id"] for one in self.added}
        prefix, suffix = (self.model.get(name) or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
        base = {one["content"] for one in self.added} | {self.model.get("unk_token")}
        base |= {token for token in self.tokens if is_one_character(token, prefix, suffix)}
        self.base = self._closed(base & self.ids.keys())

    def _closed(self, tokens: set[str]) -> set[str]:
        return tokens | self.kind.closure(self.model, tokens)

    def cut(self, wanted: Sequence[int], size: int | None) -> dict[str, Any]:
        """Return the content for the wanted tokens, as many as fit into `size`."""
        names = {number: token for token, number in self.ids.items()}
        order = [names[number] for number in wanted if number in names]
        if size is None:
            return self._of(self._closed(self.base | set(order)))
        if size < len(self.base):
            raise UserError(
                "student.vocabulary.keep",
                f"at least {len(self.base):,}: special tokens, single characters or bytes, and their parts",
                f"{size:,}",
                why="some text could no longer be read",
                fix="raise it",
            )
        most = _last(len(order), lambda number: len(self._closed(self.base | set(order[:number]))) <= size)
        return self._of(self._closed(self.base | set(order[:most])))

    def _of(self, keep: Collection[str]) -> dict[str, Any]:
        new = {number: place for place, number in enumerate(sorted(self.ids[token] for token in keep))}
        kept = sorted(set(keep) & set(self.tokens), key=self.ids.__getitem__)
        own = [one | {"id": new[one["id"]]} for one in self.added]
        smaller = self.content | {"model": self.kind.cut(self.model, kept), "added_tokens": own}
        if self.content.get("post_processor"):
            smaller["post_processor"] = _renumbered(self.content["post_processor"], new)
        return smaller


def _last(count: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number up to `count` that fits, where all smaller ones do."""
    low, high = 0, count
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _renumbered(part: Any, new: Mapping[int, int], key: str = "") -> Any:
    """Return a post-processor with new ids: those of templates, and the pairs of a token and its id."""
    if isinstance(part, dict):
        return {name: _renumbered(value, new, name) for name, value in part.items()}
    if isinstance(part, list) and key == "ids":
        return [new[number] for number in part]
    if isinstance(part, list) and key in ("sep", "cls") and len(part) == 2:
        return [part[0], new[part[1]]]
    return [_renumbered(value, new) for value in part] if isinstance(part, list) else part
