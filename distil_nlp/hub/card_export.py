"""The part of a model card on the exported student: its table, and code that runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.models.sentence_folder import MODULES, VectorSettings, read_settings
from distil_nlp.reporting.export import export_sentences, export_table, is_publishable
from distil_nlp.reporting.markdown import escape_markdown, markdown_table
from distil_nlp.reporting.tables import Table
from distil_nlp.tasks import Head, TaskKind
from distil_nlp.utils.files import read_json

_PYTHON = """import numpy as np
import onnxruntime
from huggingface_hub import hf_hub_download
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file(hf_hub_download("STUDENT", "tokenizer.json"))
session = onnxruntime.InferenceSession(hf_hub_download("STUDENT", "FILE"))
row = tokenizer.encode(TEXTS)
columns = {"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids}
feed = {one.name: np.array([columns[one.name]]) for one in session.get_inputs()}
OUTPUT"""
_PRINTED = {
    "distribution": "print(session.run(['logits'], feed)[0].argmax(-1))",
    "labels": "print(1 / (1 + np.exp(-session.run(['logits'], feed)[0])))",
    "spans": "start, end = session.run(['start_logits', 'end_logits'], feed)\nprint(start.argmax(), end.argmax())",
}
_POOLED = {"mean": "states.mean(0)", "cls": "states[0]", "max": "states.max(0)"}
_NORMALIZED = "vector /= np.linalg.norm(vector)"
_LOGITS = "print(session.run(['logits'], feed)[0])"
_JAVASCRIPT = """import { pipeline } from "@huggingface/transformers";

const model = await pipeline("TASK", "STUDENT", { dtype: "DTYPE" });
console.log(await model(INPUT));"""
_PAIR = """import { AutoModelForSequenceClassification, AutoTokenizer } from "@huggingface/transformers";

const tokenizer = await AutoTokenizer.from_pretrained("STUDENT");
const model = await AutoModelForSequenceClassification.from_pretrained("STUDENT", { dtype: "DTYPE" });
const inputs = tokenizer(["The first text."], { text_pair: ["The second text."], padding: true, truncation: true });
console.log((await model(inputs)).logits.tolist());"""
"""Pipelines of transformers.js take no pairs of texts."""
_SENTENCES = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("STUDENT", backend="onnx"FILE)
vectors = model.encode(["Write a text here.", "And another one."])"""
_INPUTS = {
    "question-answering": '"Who wrote it?", "It was written by Ada in 1843."',
    "fill-mask": '"Write a text with a MASK here."',
    "feature-extraction": '["Write a text here."], { pooling: "POOLING", normalize: NORMALIZE }',
}
"""Pipeline of transformers.js → arguments of its call; else one text."""


def export_context(facts: CardFacts, is_pair: bool, student: Path) -> dict[str, Any]:
    """Return the table of the exported student and its snippets; an empty table where there is none to publish.

    Args:
        facts: of the run.
        is_pair: whether an input is two texts.
        student: the folder of the student.
    """
    mask = _mask_token(student) if facts.kind.predicts_words else ""
    table = export_table(facts) if is_publishable(facts, "onnx") else None
    has_int8 = is_publishable(facts, "int8")
    notes = [table.note if table else "", *export_sentences(facts)]
    file = "onnx/model_quantized.onnx" if has_int8 else "onnx/model.onnx"
    vectors = vector_settings(student) if facts.kind.has_vectors else None
    javascript = _javascript(facts.kind, is_pair, mask, vectors)
    return {
        "exported": table_in_markdown(table),
        "export_notes": escape_markdown(" ".join(filter(None, notes))),
        "has_int8": has_int8,
        "onnxruntime_snippet": _python(facts.kind, is_pair, mask, vectors).replace("FILE", file),
        "javascript_snippet": javascript.replace("DTYPE", "q8" if has_int8 else "fp32"),
        "sentence_snippet": _sentences(file, has_int8) if facts.kind.has_vectors else "",
    }


def table_in_markdown(table: Table | None) -> str:
    """Return a table in Markdown; "" for none."""

    def escaped(row: Sequence[str]) -> list[str]:
        return [escape_markdown(cell) for cell in row]

    return markdown_table([escaped(table.head), *map(escaped, table.rows)]) if table else ""


def _python(kind: TaskKind, is_pair: bool, mask: str, vectors: VectorSettings | None) -> str:
    if kind.output == "spans":
        texts = '"Who wrote it?", "It was written by Ada in 1843."'
    elif is_pair and kind.joins_pairs:
        texts = '"The first text.", "The second text."'
    else:
        texts = f'"Write a text with a {mask} here."' if kind.predicts_words else '"Write a text here."'
    output = _PRINTED.get(kind.output, _LOGITS) if vectors is None else _vector(vectors)
    return _PYTHON.replace("TEXTS", texts).replace("OUTPUT", output)


def vector_settings(student: Path) -> VectorSettings:
    """Return how a sentence encoder makes vectors; the usual way where its folder does not say."""
    is_told = (student / MODULES).is_file()
    return read_settings(str(student), None, Head("embedding"))[0] if is_told else VectorSettings()


def _vector(settings: VectorSettings) -> str:
    """Return code that makes a vector of the graph's states, by the modules of the sentence encoder."""
    lines = ["states = session.run(['last_hidden_state'], feed)[0][0]", f"vector = {_POOLED[settings.pooling]}"]
    if settings.dense:
        lines += ["# then the Dense layer in 2_Dense/, which is not part of the graph"]
    return "\n".join([*lines, *([_NORMALIZED] if settings.normalize else []), "print(vector)"])


def _mask_token(student: Path) -> str:
    """Return the mask token of the student's tokenizer."""
    token = (read_json(student / "tokenizer_config.json", "the card does not know its mask") or {}).get("mask_token")
    return str(token.get("content") if isinstance(token, dict) else token or "[MASK]")


def _javascript(kind: TaskKind, is_pair: bool, mask: str, vectors: VectorSettings | None) -> str:
    if is_pair and kind.joins_pairs and kind.output != "spans":
        return _PAIR
    task = "feature-extraction" if kind.has_vectors else kind.pipeline_tag
    text = _INPUTS.get(task, '"Write a text here."').replace("MASK", mask)
    if vectors is not None:
        text = text.replace("POOLING", vectors.pooling).replace("NORMALIZE", str(vectors.normalize).lower())
    return _JAVASCRIPT.replace("TASK", task).replace("INPUT", text)


def _sentences(file: str, has_int8: bool) -> str:
    return _SENTENCES.replace("FILE", f', model_kwargs={{"file_name": "{file}"}}' if has_int8 else "")
