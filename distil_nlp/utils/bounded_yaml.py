"""YAML of strangers: read in bounded time and memory, whatever its aliases multiply to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LONGEST_YAML, _LONGEST_CARD = 2**20, 2**23
"""Bytes of a recipe, which has thousands, and of a card."""
_DEEPEST, _LONGEST_NUMBER, _LINE = 40, 100, 50
_PLAIN = ("null", "bool", "int", "float", "str", "seq", "map", "merge")


class UnboundedYaml(yaml.YAMLError):
    """YAML that is larger than any honest file, once its aliases are written out."""


class BoundedLoader(yaml.SafeLoader):
    """A loader of numbers, texts, lists and mappings that refuses what would be vast, or endless, written out.

    An alias counts as all that it stands for, because whoever copies, prints or validates the tree visits it each time.

    Attributes:
        most_values: lists, mappings, keys and values of a document, and lines of long texts; recipes have hundreds.
    """

    most_values = 10_000

    def __init__(self, stream: str):
        super().__init__(stream)
        self._open = [0]  # nodes so far within the document and within each node that is being composed
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return the next node; raise an error where the tree gets too large or too deep, or holds itself."""
        mark, is_alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        if len(self._open) > _DEEPEST:
            raise UnboundedYaml(f"more than {_DEEPEST} levels{mark}")
        self._open.append(1)
        node: Any = super().compose_node(parent, index)
        size = self._open.pop() + (len(node.value) // _LINE if isinstance(node, yaml.ScalarNode) else 0)
        if is_alias and node not in self._sizes:
            raise UnboundedYaml(f"an anchor inside of itself{mark}")
        size = self._sizes.setdefault(node, size)
        self._open[-1] += size
        if self._open[-1] > self.most_values:
            raise UnboundedYaml(f"more than {self.most_values:,} values, once its aliases are written out{mark}")
        return node

    def construct_short_number(self, node: yaml.ScalarNode) -> int | float:
        """Return a number of a length that can be printed."""
        if len(node.value) > _LONGEST_NUMBER:
            raise UnboundedYaml(f"a number of {len(node.value):,} digits{node.start_mark}")
        return self.construct_yaml_int(node) if node.tag.endswith(":int") else self.construct_yaml_float(node)


BoundedLoader.yaml_constructors = {
    tag: BoundedLoader.construct_short_number if str(tag).endswith((":int", ":float")) else constructor
    for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _PLAIN
}


class _CardLoader(BoundedLoader):
    """A loader of cards, of which some list hundreds of configurations."""

    most_values = 200_000


def check_card(file: Path) -> None:
    """Raise UnboundedYaml if the YAML at the head of a README.md, or a file of YAML, is too large to be read.

    Broken YAML passes: whoever reads it says so.
    """
    if file.stat().st_size > _LONGEST_CARD:
        raise UnboundedYaml(f"{file.name} has more than {_LONGEST_CARD >> 20} MiB")
    text = file.read_text(encoding="utf-8", errors="replace")
    if file.suffix == ".md":
        from huggingface_hub.repocard import REGEX_YAML_BLOCK  # recipes are read without it

        head = REGEX_YAML_BLOCK.search(text)
        text = head[2] if head else ""
    try:
        yaml.compose(text, Loader=_CardLoader)
    except UnboundedYaml:
        raise
    except (yaml.YAMLError, ValueError, RecursionError):
        return
