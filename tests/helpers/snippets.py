"""The fenced blocks of the documentation, and a folder with what their readers have."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import textwrap
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch

from tests.helpers import ROOT, sentences, showcase, tiny

PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("skills/**/*.md"), *ROOT.glob("llms.txt"))
    if path.name != "CHANGELOG.md"
)
SHELL = ("", "sh", "bash", "console")
PROGRAMS = ("distil-nlp", "make", "pip", "python", "accelerate", "torchrun", "hf", "jupytext", ".venv/bin/python")
_FENCE = re.compile(
    r"(?:^ *<!-- (?P<note>[^\n]*?) -->\n)?^(?P<indent> *)```(?P<language>[\w{}-]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.M | re.S,
)


@dataclass(frozen=True)
class Snippet:
    """A fenced block.

    Attributes:
        page: the file's path in the repository.
        line: of the block's first line of code.
        language: the word after the fence; "" without one.
        code: its text.
        note: the invisible comment in the line above: `run`, `run by <test>`, `not run: <reason>` or `a study`.
    """

    page: str
    line: int
    language: str
    code: str
    note: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_shell(self) -> bool:
        """Whether it has commands: a block without a language may show a file or an output."""
        first = self.code.lstrip().split(maxsplit=1)
        return self.language in SHELL and bool(first) and (self.language != "" or first[0] in PROGRAMS)

    @property
    def commands(self) -> list[list[str]]:
        """The commands in it, as a shell divides them."""
        lines = re.sub(r"\\\n\s*", " ", self.code).splitlines()
        parts = [part for line in lines if not line.startswith("…") for part in _divided(line)]
        return [part for part in parts if part]


def _divided(line: str) -> list[list[str]]:
    """Return the commands of a line: those that `&&` and `|` divide, and that whose output a variable gets."""
    line = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line.strip())
    line = re.sub(r"^(?:[A-Z_]+=\S+ )+|\s>+ \S+", "", line)  # variables before a command, and where its output goes
    commands: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ("&&", "|", ";"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def snippets() -> list[Snippet]:
    """Return all fenced blocks of all pages, in order."""
    return [snippet for page in PAGES for snippet in snippets_of(page)]


def snippets_of(page: Path) -> list[Snippet]:
    """Return the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT).as_posix()
    return [
        Snippet(
            name,
            text.count("\n", 0, match.start("code")) + 1,
            match["language"],
            textwrap.dedent(match["code"]),
            (match["note"] or "").strip(),
        )
        for match in _FENCE.finditer(text)
    ]


def prepare_readers_folder(folder: Path) -> None:
    """Write the models and files that the guides name, tiny ones."""
    words = ["cat", "dog", "bird", "fish", "tree", "house", "river", "stone"]
    texts = [f"the {one} sees a {other} ." for one in words for other in words]
    labels = ["account", "billing", "delivery"]
    classifier = tiny.classifier(4, 3, max_position_embeddings=128, **_names(labels))
    teams = [labels[number] for number in _balance(classifier, texts)]
    _save(classifier, folder / "my-bert")
    _save(classifier, folder / "my-classifier")
    _save(tiny.tagger(4, 3, **_names(["B-LOC", "B-PER", "O"])), folder / "my-tagger")
    sentences.save_teacher(folder / "my-sentence-model")
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    tickets = [{"body": text, "team": team} for text, team in zip(texts, teams, strict=True)]
    _write_csv(folder / "tickets.csv", tickets)
    answers = {"p_account": 0.1, "p_billing": 0.2, "p_delivery": 0.7}
    _write_csv(
        folder / "answered.csv",
        [row | (answers if number % 5 else dict.fromkeys(answers, "")) for number, row in enumerate(tickets)],
    )
    scored = [{"sentence1": one, "sentence2": other, "label": len(one) % 6} for one, other in pairwise(texts)]
    _write_csv(folder / "pairs.csv", scored)
    for split, rows in {"train": tickets[:48], "test": tickets[48:]}.items():
        columns = [{"text": row["body"], "label": row["team"]} for row in rows]
        _write_csv(folder / "my-folder" / f"{split}.csv", columns)
    for split, people in {"train": words[:6], "test": words[6:]}.items():
        tags = ["B-PER", "O", "B-LOC"]
        tagged = [{"tokens": [one, "sees", other], "tags": tags} for one in people for other in words]
        _write(folder / "my-ner" / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in tagged))


def _names(classes: list[str]) -> dict[str, object]:
    return {"id2label": dict(enumerate(classes)), "label2id": {name: number for number, name in enumerate(classes)}}


def _balance(classifier, texts: list[str]) -> list[int]:
    """Scale the outputs of an untrained classifier so that it predicts all classes; return what it predicts."""
    tokenizer = tiny.tokenizer()
    with torch.no_grad():
        logits = torch.cat([classifier(**tokenizer(text, return_tensors="pt")).logits for text in texts])
        head, scale = classifier.classifier, 3 / logits.std(0)
        head.weight.mul_(scale[:, None])
        head.bias.copy_((head.bias - logits.mean(0)) * scale)
    return ((logits - logits.mean(0)) * scale).argmax(-1).tolist()


def run_results(folder: Path) -> None:
    """Write the results of a run, unless there are some."""
    if not (folder / "results.json").exists():
        folder.mkdir(parents=True)
        (folder / "results.json").write_text(json.dumps(showcase.example()))


def _save(model, folder: Path) -> None:
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
