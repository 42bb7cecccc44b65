"""The parts of a `tokenizer.json` that know tokens: WordPiece, BPE and Unigram, each cut down to some tokens.

Every kind keeps what lets any text be read without new unknown tokens: single characters, single bytes, and for BPE the
parts that a token is merged of.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

TokenModel = dict[str, Any]
"""The entry `model` of a `tokenizer.json`."""


class TokenModelKind(NamedTuple):
    """What cutting needs to know of a kind of token model.

    Attributes:
        tokens: the model → its tokens, in the order of their ids.
        closure: (model, wanted tokens) → the tokens without which these are never made.
        cut: (model, kept tokens, in the order of their new ids) → the smaller model.
    """

    tokens: Callable[[TokenModel], list[str]]
    closure: Callable[[TokenModel, Collection[str]], set[str]]
    cut: Callable[[TokenModel, list[str]], TokenModel]


def is_one_character(token: str, prefix: str = "", suffix: str = "") -> bool:
    """Return whether a token is one character or one byte.

    Args:
        token: any.
        prefix: of tokens that continue a word.
        suffix: of tokens that end a word, each character of which is a token of its own.
    """
    bare = token.removeprefix(prefix).removesuffix(suffix) if token not in (prefix, suffix) else token
    return len(bare) == 1 or (len(token) == 6 and token.startswith("<0x") and token.endswith(">"))


def _by_id(model: TokenModel) -> list[str]:
    return sorted(model["vocab"], key=model["vocab"].__getitem__)


def _numbered(model: TokenModel, kept: list[str]) -> TokenModel:
    return {**model, "vocab": {token: number for number, token in enumerate(kept)}}


# WordPiece --------------------------------------------------------------------------------------------------------


def _no_parts(model: TokenModel, wanted: Collection[str]) -> set[str]:
    return set()


# BPE --------------------------------------------------------------------------------------------------------------


def merges_of(model: TokenModel) -> list[tuple[str, str]]:
    """Return the merges in order; files of older versions have them as strings."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _merged(model: TokenModel, left: str, right: str) -> str:
    prefix = model.get("continuing_subword_prefix") or ""
    return left + (right.removeprefix(prefix) if prefix else right)


def _parts_of_merges(model: TokenModel, wanted: Collection[str]) -> set[str]:
    """Return the parts of which wanted tokens are merged, their parts, and so on."""
    first: dict[str, tuple[str, str]] = {}
    for left, right in merges_of(model):
        first.setdefault(_merged(model, left, right), (left, right))
    found: set[str] = set()
    queue = [token for token in wanted if token in first]
    while queue:
        for part in first.get(queue.pop(), ()):
            if part not in found:
                found.add(part)
                queue.append(part)
    return found


def _cut_merges(model: TokenModel, kept: list[str]) -> TokenModel:
    known = set(kept)
    merges = [[left, right] for left, right in merges_of(model) if {left, right, _merged(model, left, right)} <= known]
    return {**_numbered(model, kept), "merges": merges}


# Unigram ----------------------------------------------------------------------------------------------------------


def _pieces(model: TokenModel) -> list[str]:
    return [piece for piece, _ in model["vocab"]]


def _unknown_piece(model: TokenModel, wanted: Collection[str]) -> set[str]:
    return set() if model.get("unk_id") is None else {_pieces(model)[model["unk_id"]]}


def _cut_pieces(model: TokenModel, kept: list[str]) -> TokenModel:
    scores: Mapping[str, float] = dict(model["vocab"])
    unknown = [kept.index(piece) for piece in _unknown_piece(model, ())]
    vocabulary = [[piece, scores[piece]] for piece in kept]
    return {**model, "vocab": vocabulary, "unk_id": unknown[0] if unknown else None}


TOKEN_MODELS = {
    "WordPiece": TokenModelKind(_by_id, _no_parts, _numbered),
    "BPE": TokenModelKind(_by_id, _parts_of_merges, _cut_merges),
    "Unigram": TokenModelKind(_pieces, _unknown_piece, _cut_pieces),
}
"""Kinds of token model, by their name in `tokenizer.json`."""
