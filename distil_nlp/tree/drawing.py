"""The drawing of a tree: the root on the left, the leaves in a column on the right, the left branch above."""

from __future__ import annotations

from dataclasses import dataclass

from distil_nlp.tree.nodes import DescribedTree, InnerNode, NodeWord

_COLUMN, _ROW, _LEAF_COLUMN, _MARGIN = 152, 30, 190, 20
_BAR, _MOST_LETTERS = 64, 25


@dataclass(frozen=True)
class Branch:
    """A line from a node to one of its children, with the words that speak for it.

    Attributes:
        first, last: leaves below.
        path: of the line.
        width: of the line; it grows with the share of the training rows.
        x, y: place of the words.
        words: as many as fit.
        title: all words, for a tooltip.
    """

    first: int
    last: int
    path: str
    width: float
    x: float
    y: float
    words: str
    title: str


@dataclass(frozen=True)
class DrawnLeaf:
    """A leaf: the bar of its distribution, its likeliest class, and its share of the rows.

    Attributes:
        segments: (x, width, number of the class) of the bar's parts.
    """

    leaf: int
    x: float
    y: float
    segments: tuple[tuple[float, float, int], ...]
    label: str
    share: str
    title: str


@dataclass(frozen=True)
class Drawing:
    """Lines and leaves, and the size of the drawing.

    Attributes:
        hidden: leaves that are no training row's likeliest, which are left out.
    """

    width: int
    height: int
    branches: tuple[Branch, ...]
    leaves: tuple[DrawnLeaf, ...]
    hidden: int


def draw_tree(tree: DescribedTree, labels: list[str]) -> Drawing:
    """Return the drawing of all that some training row's likeliest way goes through."""
    used = [leaf.leaf for leaf in tree.leaves if leaf.share > 0]
    rows = {leaf: _MARGIN + _ROW * i for i, leaf in enumerate(used)}
    branches: list[Branch] = []

    def place(node: int) -> float:
        """Return the height of a node after drawing all below it."""
        if node >= len(tree.nodes):
            return rows[node - len(tree.nodes)]
        children = [child for child in (2 * node + 1, 2 * node + 2) if tree.share_of(child) > 0]
        heights = [place(child) for child in children]
        y = sum(heights) / len(heights)
        x = _MARGIN + _COLUMN * tree.nodes[node].depth
        branches.extend(_branch(tree, node, child, x, y, end) for child, end in zip(children, heights, strict=True))
        return y

    place(0)
    leaves = tuple(_leaf(tree, leaf, rows[leaf], labels) for leaf in used)
    width = _MARGIN + _COLUMN * tree.depth + _LEAF_COLUMN
    return Drawing(width, _ROW * len(used) + _MARGIN, tuple(branches), leaves, len(tree.leaves) - len(used))


def _branch(tree: DescribedTree, node: int, child: int, x: float, y: float, end: float) -> Branch:
    below, inner = tree.leaves_below(child), tree.nodes[node]
    words = branch_words(inner, is_right=child % 2 == 0)
    path = f"M{x:g} {y:g}V{end:g}H{x + _COLUMN:g}"
    width = 1 + 5 * tree.share_of(child)
    title = f"node {node}: " + (", ".join(word.word for word in words) or "no words")
    return Branch(below[0], below[-1], path, width, x + 7, end - 4 - width / 2, _fitting(words), title)


def branch_words(node: InnerNode, is_right: bool) -> tuple[NodeWord, ...]:
    """Return the words that speak for a branch."""
    return node.right_words if is_right else node.left_words


def _fitting(words: tuple[NodeWord, ...]) -> str:
    """Return the first words that fit on a line; the first alone is cut."""
    if not words:
        return ""
    text = words[0].word if len(words[0].word) <= _MOST_LETTERS else f"{words[0].word[: _MOST_LETTERS - 1]}…"
    for word in words[1:]:
        if len(text) + 2 + len(word.word) > _MOST_LETTERS:
            break
        text += f", {word.word}"
    return text


def _leaf(tree: DescribedTree, number: int, y: float, labels: list[str]) -> DrawnLeaf:
    leaf = tree.leaves[number]
    x = _MARGIN + _COLUMN * tree.depth + 4
    best = max(range(len(labels)), key=leaf.distribution.__getitem__)
    title = ", ".join(f"{name} {value:.2f}" for name, value in zip(labels, leaf.distribution, strict=True))
    name = labels[best] if len(labels[best]) <= 12 else f"{labels[best][:11]}…"
    segments = bar_segments(leaf.distribution, x, _BAR)
    return DrawnLeaf(
        number,
        x,
        y,
        segments,
        f"{name} {leaf.distribution[best]:.2f}",
        "< 1 %" if leaf.share < 0.01 else f"{100 * leaf.share:.0f} %",
        title,
    )


def bar_segments(distribution: tuple[float, ...], x: float, width: float) -> tuple[tuple[float, float, int], ...]:
    """Return (x, width, class) of the parts of a stacked bar."""
    segments, start = [], x
    for number, probability in enumerate(distribution):
        segments.append((round(start, 2), round(width * probability, 2), number))
        start += width * probability
    return tuple(segments)
