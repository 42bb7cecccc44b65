"""Paragraphs of English prose in the docstrings of Python sources, which are parsed, never imported."""

import ast
import inspect
import itertools
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SHARED_WORDS = 8
NAMES = re.compile(
    r"\b(matplotlib|pyplot|mpl|plt|pandas|pd|scipy|sklearn|scikit[- ]learn|scikit|sympy|pytorch|torch"
    r"|transformers|hugging ?face|numpy|np|networkx|nx)\b",
    re.IGNORECASE,
)
ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*?)(?:\s*<[^`]*>)?`")  # :class:`~a.B`, :ref:`title <target>`
URL = re.compile(r"<?https?://\S+")
MARKUP = re.compile(r"[`*|]+|\[\d+\]_?|\$")
NOT_PROSE = re.compile(  # doctests, directives, underlines and tables, lists, fields, `name : type`
    r"^(>>>|\.\.|[-=~^+]{3}|[-*#|@]\s|\d+[.)]\s|\w+ ?: ?\w+$|:\w)|\S+ : \S", re.MULTILINE
)
COMMON_WORDS = frozenset({
    "a", "an", "and", "are", "as", "be", "by", "for", "from", "if", "in", "is", "it", "not", "of", "on", "or",
    "that", "the", "this", "to", "with",
})  # fmt: skip


class Paragraph(NamedTuple):
    """A paragraph and the file that it is from, as `<library>/<path within the library>`."""

    library: str
    file: str
    text: str


def read_file(path: str, min_words: int = 30, max_words: int = 120) -> list[str]:
    """Return the distinct paragraphs of all docstrings in a source file; [] if it cannot be parsed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's sources
            tree = ast.parse(Path(path).read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return []
    texts = (text for docstring in docstrings(tree) for text in prose(docstring, min_words, max_words))
    return list(dict.fromkeys(texts))


def docstrings(node: ast.AST) -> Iterator[str]:
    """Yield the docstrings of a module and of all definitions in it.

    `ast.walk` would visit expressions too, which hold no definitions and are most of the tree.
    """
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield ast.get_docstring(node) or ""
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        for statement in getattr(node, field, ()):
            yield from docstrings(statement)


def prose(docstring: str, min_words: int = 30, max_words: int = 120) -> list[str]:
    """Return the paragraphs of English prose in a docstring, on one line each, libraries' names masked.

    A paragraph is a run of lines of one indentation, so that a parameter's description is apart from its
    name and type. Doctests, tables, lists, directives and code are dropped.
    """
    paragraphs = []
    for _, lines in itertools.groupby(inspect.cleandoc(docstring).splitlines(), key=indentation):
        block = inspect.cleandoc("\n".join(lines))
        text = "" if NOT_PROSE.search(block) else clean(block)
        if min_words <= len(text.split()) <= max_words and is_english(text):
            paragraphs.append(text)
    return paragraphs


def indentation(line: str) -> int:
    """Return the number of leading spaces; -1 for an empty line."""
    return len(line) - len(line.lstrip()) if line.strip() else -1


def clean(block: str) -> str:
    """Return the block on one line, without markup and links, with the libraries' names masked."""
    text = MARKUP.sub("", ROLE.sub(r"\1", URL.sub("", block)))
    return " ".join(NAMES.sub("library", text).split())


def is_english(text: str) -> bool:
    """Return True for text like sentences: capital, full stop, a fifth common words, three quarters letters."""
    words = text.lower().split()
    common = sum(word.strip(".,;:()") in COMMON_WORDS for word in words)
    letters = sum(character.isalpha() for character in text)
    is_wordy = common >= 0.2 * len(words) and letters >= 0.75 * len(text.replace(" ", ""))
    return is_wordy and text.isascii() and text[0].isupper() and text[-1] in ".:!?)"


def without_shared_wording(paragraphs: Sequence[Paragraph]) -> list[Paragraph]:
    """Return the paragraphs that share no run of `SHARED_WORDS` words with another file; only letters count.

    All copies are dropped, the first too, so that the result does not depend on the order, and no text has two
    labels.
    """
    owner: dict[int, str | None] = {}  # None: occurs in several files
    runs = [word_runs(paragraph.text) for paragraph in paragraphs]
    for paragraph, own_runs in zip(paragraphs, runs, strict=True):
        for run in own_runs:
            if owner.setdefault(run, paragraph.file) != paragraph.file:
                owner[run] = None
    rows = zip(paragraphs, runs, strict=True)
    return [paragraph for paragraph, own_runs in rows if all(owner[run] is not None for run in own_runs)]


def word_runs(text: str) -> set[int]:
    """Return a hash of each run of `SHARED_WORDS` words in the text; of the whole text where that is shorter."""
    words = re.findall(r"[a-z]+", text.lower())
    return {hash(tuple(words[i : i + SHARED_WORDS])) for i in range(max(1, len(words) - SHARED_WORDS + 1))}
