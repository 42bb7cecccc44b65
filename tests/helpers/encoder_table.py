"""The table of encoders in docs/encoders.md: `python -m tests.helpers.encoder_table` tries them all and writes it."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.relations import QueryRelation, ValueRelation
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student
from distil_nlp.models.outputs import output_logits
from distil_nlp.models.trial import trial_batch, undisturbed
from distil_nlp.objective import LossTerm
from distil_nlp.pipeline.trial import try_alone
from distil_nlp.signals.probe import say_once
from distil_nlp.tasks import KINDS
from tests.helpers import ROOT, training
from tests.helpers.families import CLASSIFIERS, tiny_config, with_random_norms

PAGE = ROOT / "docs" / "encoders.md"
BEGIN, END = "<!-- table -->\n", "<!-- /table -->\n"
LEFT_OUT = {
    "Bart": "encoder and decoder", "MBart": "encoder and decoder", "Mvp": "encoder and decoder",
    "ModernVBert": "images and text", "NeoMME": "images, sound and text", "UltraVBert": "images and text",
    "Perceiver": "no stack of layers", "Tapas": "tables, with seven numbers a token for their cells",
}  # fmt: skip
"""Families with a head of masked language modelling that no row is made for, and what they are."""
FAMILIES = [name for name in CLASSIFIERS if name not in LEFT_OUT and hasattr(transformers, f"{name}Config")]
HEADS = {"masked LM": "mlm", "classes": "classification", "tags": "tokens", "questions": "qa"}
"""Heading of a column → kind of task of which one step is taken."""
TERMS: dict[str, Callable[[], list[LossTerm]]] = {
    "hidden states": lambda: [HiddenMSE(1.0)],
    "attention": lambda: [AttentionKL(1.0)],
    "relations": lambda: [QueryRelation(1.0), ValueRelation(1.0)],
}
"""Heading of a column → terms of which one step is taken, with classes."""
COLUMNS = (*HEADS, "layers", *TERMS, "DistilBERT")
_NUM_LABELS = {"classification": 2, "tokens": 3}
_MULTIPLES = {"Reformer": 8}
"""Family → multiple that its rows are padded to."""


class Cell(NamedTuple):
    """Whether a family supports something, with the package's own words on why not, or at what price."""

    works: bool
    notes: tuple[str, ...] = ()


def row_of(family: str) -> dict[str, Cell]:
    """Return heading → what came of trying it with a tiny random model of four blocks."""
    say_once.cache_clear()
    classes = partial(_teacher, family, "classification")
    found = {"layers": _tried(family, lambda: _copied(classes()))}
    layers = "every_other" if found["layers"].works else "random"
    found |= {heading: _tried(family, partial(_distil, family, kind, layers)) for heading, kind in HEADS.items()}
    for heading, terms in TERMS.items():
        found[heading] = _tried(family, partial(_distil, family, "classification", layers, terms()))
    found["DistilBERT"] = _tried(family, lambda: _copied(classes(), "distilbert"))
    if family in _MULTIPLES:
        note = f"rows padded to a multiple of {_MULTIPLES[family]} (`data.pad_to_multiple_of`)"
        found["classes"] = found["classes"]._replace(notes=(*found["classes"].notes, note))
    return {heading: found[heading] for heading in COLUMNS}


def table(rows: dict[str, dict[str, Cell]]) -> str:
    """Return the table of families, and the numbered notes below it."""
    notes = list(dict.fromkeys(note for row in rows.values() for cell in row.values() for note in cell.notes))
    lines = [f"| family | {' | '.join(COLUMNS)} |", f"|---|{'---|' * len(COLUMNS)}"]
    for family, row in rows.items():
        lines.append(f"| {family} | {' | '.join(_shown(row[heading], notes) for heading in COLUMNS)} |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""])


def written(family: str) -> dict[str, Cell]:
    """Return the row of a family on the page, with the notes that its numbers stand for."""
    text = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    line = next(line for line in text.splitlines() if line.startswith(f"| {family} |"))
    cells = [cell.split() for cell in line.strip("| ").split(" | ")[1:]]
    found = [Cell(word == "yes", tuple(notes[number.strip(",")] for number in numbers)) for word, *numbers in cells]
    return dict(zip(COLUMNS, found, strict=True))


def families_written() -> list[str]:
    """Return the families that the page has a row of."""
    lines = PAGE.read_text().partition(BEGIN)[2].partition(END)[0].splitlines()[2:]
    return [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("| ")]


def _shown(cell: Cell, notes: list[str]) -> str:
    numbers = ", ".join(str(notes.index(note) + 1) for note in cell.notes)
    return f"{'yes' if cell.works else 'no'} {numbers}".strip()


def _tried(family: str, function: Callable[[], Iterable[str] | None]) -> Cell:
    """Return a cell for what a function says; any error but a message of the package's own is passed on."""
    try:
        with _heard() as warned:
            notes = list(function() or [])
    except UserError as error:
        return Cell(False, (_plain(f"expected {error.expected}, got {error.got}", family),))
    return Cell(True, tuple(dict.fromkeys(_plain(note, family) for note in [*notes, *warned])))


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect the warnings of the package."""
    lines: list[str] = []
    handler, logger = logging.Handler(logging.WARNING), logging.getLogger("distil_nlp")
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def _plain(text: str, family: str) -> str:
    """Return a message without the names of classes, numbers of layers and versions that differ between families."""
    text = re.sub(rf"\b{family}(For\w+|Model|Config|With\w+)", "the model", text)
    text = re.sub(r" (?:of )?layers \[[\d, ]+\]( of the model)?", " of the model's layers", text)
    text = re.sub(r"\(\d+, \d+(, \d+)*\)", "(…)", text)
    text = re.sub(rf"\bgot {tiny_config(family).model_type}$", "got another family", text)
    return re.sub(r"(?<=:) the model's", " the model's", text).removeprefix("the model: ")


def _copied(teacher: PreTrainedModel, architecture: Any = "same") -> list[str]:
    """Build a student of half the depth; return what its report says besides tensors copied."""
    _, report = build_student(teacher, architecture=architecture)
    names = {"new": report.new, "without a place of their own in the student": report.dropped}
    return [f"{what}: {', '.join(f'`{name}`' for name in found)}" for what, found in names.items() if found]


def _teacher(family: str, kind: str) -> PreTrainedModel:
    config, auto = tiny_config(family), KINDS[kind].auto_model
    classes = getattr(transformers, auto)._model_mapping
    if type(config) not in classes:
        raise UserError(None, f"a class for `{auto}`", "none in transformers")
    if kind in _NUM_LABELS:
        config.num_labels = _NUM_LABELS[kind]
    found = classes[type(config)]
    return with_random_norms(found[0] if isinstance(found, tuple) else found, config)


def _distil(family: str, kind: str, layers: Any, terms: list[LossTerm] | None = None) -> None:
    """Take one step of distillation, and compare the student with what is read back of it.

    Raises:
        AssertionError: if the step changed nothing, or the student gives other outputs than what was saved of it.
    """
    teacher = _teacher(family, kind)
    try_alone(teacher)
    student, _ = build_student(teacher, layers)
    before = [weight.clone() for weight in student.parameters()]
    with tempfile.TemporaryDirectory() as folder:
        terms = terms or [SoftTargetKL(1.0), HardLabel(1.0)]
        blocks = [{"input_ids": [2, *range(5, 19), 3]}] * 8 if (family, kind) == ("Reformer", "mlm") else None
        trainer = training.trainer(Path(folder), student, teacher, terms, kind=kind, rows=blocks, max_steps=1)
        if family in _MULTIPLES and not blocks:
            trainer.data_collator.collate.pad_to_multiple_of = _MULTIPLES[family]
        trainer.train()
        trainer.save_model(folder)
        again = getattr(transformers, KINDS[kind].auto_model).from_pretrained(folder)
    assert not all(map(torch.equal, before, student.parameters()))
    torch.testing.assert_close(_outputs(again), _outputs(student), atol=1e-5, rtol=1e-4)


def _outputs(model: PreTrainedModel) -> torch.Tensor:
    with undisturbed(model):
        return output_logits(model(**trial_batch(model)))


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table({name: row_of(name) for name in FAMILIES}) + END + rest.partition(END)[2])
