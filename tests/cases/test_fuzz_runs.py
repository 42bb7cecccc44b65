"""Whole runs over families, tokenizers, files and configuration fields, drawn anew: right, or refused in words.

`FUZZ_MINUTES` bounds them (10 unless set), `FUZZ_SEED` repeats them. What a run says of its teacher is compared with
plain transformers, text by text.
"""

from __future__ import annotations

import collections
import csv
import gzip
import json
import math
import os
import random
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, BertTokenizerFast, PreTrainedTokenizerFast

from distil_nlp.cli import distill
from tests.helpers.families import CLASSIFIERS, classifier_of

SPECIALS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
WORDS = ("the", "a", "cat", "dog", "bird", "fish", "tree", "house", "river", "stone", "sees", "likes", "eats", "red")
TERMS = ("soft_target_kl", "hard_label", "hidden_cosine", "hidden_mse", "attention_kl")
SPOILERS = ('"{}', '{} "', 'the "red {}', "{}, and more", "{}\\", "'{}", "{} é 猫", "{};{}", "NA {}", "- {}", "{}  ")
"""Ways in which texts of real files look like syntax."""
FIELDS: dict[str, list[Any]] = {
    "output_attentions": [True],
    "output_hidden_states": [True],
    "return_dict": [False],
    "use_cache": [True],
    "torchscript": [True],
    "problem_type": ["single_label_classification", "multi_label_classification", "regression", None],
    "chunk_size_feed_forward": [3, 16],
    "tie_word_embeddings": [False, True],
    "attn_implementation": ["eager", "sdpa"],
    "use_mean_pooling": [True],
    "layerdrop": [0.5],
    "classifier_dropout": [0.3],
    "max_length": [20],
    "num_hidden_layers": [10**6, 3],
    "vocab_size": [10**9],
    "type_vocab_size": [1],
    "pad_token_id": [0, None],
    "task_specific_params": [{"text-classification": {"x": 1}}],
}
FILES = ("csv", "tsv", "plain.tsv", "jsonl", "json", "parquet", "csv.gz", "jsonl.gz")
NAMES = {
    "as the data": ("no", "yes"),
    "exchanged": ("yes", "no"),
    "numbered": ("LABEL_0", "LABEL_1"),
    "others": ("x", "y"),
}


@dataclass
class Trial:
    """One run, and what was drawn for it."""

    seed: int
    family: str
    tokenizer: str
    file: str
    names: str
    terms: list[str]
    fields: dict[str, Any] = field(default_factory=dict)
    spoiled: float = 0.0
    columns: int = 1


def drawn(seed: int) -> Trial:
    draw = random.Random(seed)
    fields = draw.sample(sorted(FIELDS), draw.choice([0, 0, 1, 1, 2]))
    return Trial(
        seed,
        draw.choice([name for name in CLASSIFIERS]),
        draw.choice(sorted(TOKENIZERS)),
        draw.choice(FILES),
        draw.choice(sorted(NAMES)),
        draw.sample(TERMS, draw.choice([1, 2, 3])),
        {name: draw.choice(FIELDS[name]) for name in fields},
        draw.choice([0.0, 0.0, 0.2]),
        draw.choice([1, 1, 2]),
    )


# Tokenizers of all kinds, with the special tokens at 0 to 4 -----------------------------------------------------------


def word_piece():
    pieces = [*SPECIALS, *WORDS, *"abcdefghijklmnopqrstuvwxyz", *(f"##{one}" for one in "abcdefghijklmnopqrstuvwxyz")]
    return BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)})


def with_a_hole():
    vocabulary = {word: i for i, word in enumerate([*SPECIALS, *WORDS])}
    return BertTokenizerFast(vocab={word: i + 7 * (i > 12) for word, i in vocabulary.items()})


def fast(model: Any, segments: bool = False) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair=f"[CLS] $A [SEP] $B{':1' * segments} [SEP]{':1' * segments}",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    names = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def word_level():
    return fast(models.WordLevel({word: i for i, word in enumerate([*SPECIALS, *WORDS])}, unk_token="[UNK]"), True)


def unigram():
    letters = [*"abcdefghijklmnopqrstuvwxyz"]
    return fast(models.Unigram([*((one, 0.0) for one in SPECIALS), *((one, -3.0) for one in [*WORDS, *letters])], 3))


def byte_pairs():
    vocabulary = {one: i for i, one in enumerate([*SPECIALS, *"abcdefghijklmnopqrstuvwxyz", "th", "the", "re", "red"])}
    return fast(models.BPE(vocabulary, [("t", "h"), ("th", "e"), ("r", "e"), ("re", "d")], unk_token="[UNK]"))


TOKENIZERS = {one.__name__: one for one in (word_piece, with_a_hole, word_level, unigram, byte_pairs)}


# Files ----------------------------------------------------------------------------------------------------------------


def rows_of(trial: Trial, count: int, seed: int) -> pd.DataFrame:
    draw = random.Random((trial.seed, seed, "rows").__repr__())

    def text() -> str:
        plain = " ".join(draw.choices(WORDS, k=draw.randint(3, 12)))
        return draw.choice(SPOILERS).format(plain, plain) if draw.random() < trial.spoiled else plain

    columns = {name: [text() for _ in range(count)] for name in ("text", "other")[: trial.columns]}
    return pd.DataFrame(columns | {"label": [("no", "yes")[i % 2] for i in range(count)]})


def write(rows: pd.DataFrame, file: Path) -> None:
    kind = file.name.split(".", 1)[1]
    if kind == "plain.tsv":
        lines = ["\t".join(rows.columns), *("\t".join(row) for row in rows.itertuples(index=False))]
        file.with_name(f"{file.name.split('.')[0]}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    elif kind == "parquet":
        rows.to_parquet(file)
    elif kind.startswith("json"):
        text = rows.to_json(orient="records", lines=kind != "json", force_ascii=False)
        data = text.encode()
        file.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    else:
        rows.to_csv(file, index=False, sep="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_MINIMAL)


# A run, and what must be true of it -----------------------------------------------------------------------------------


def prepare(trial: Trial, folder: Path) -> list[str]:
    """Write teacher, data and recipe; return the command's arguments."""
    names = NAMES[trial.names]
    model = classifier_of(trial.family)
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    model.save_pretrained(folder / "teacher")
    TOKENIZERS[trial.tokenizer]().save_pretrained(folder / "teacher")
    config = folder / "teacher" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | trial.fields))
    (folder / "data").mkdir()
    for split, count in (("train", 24), ("test", 13)):
        write(rows_of(trial, count, count), folder / "data" / f"{split}.{trial.file}")
    recipe = {
        "teacher": {"name": str(folder / "teacher"), "folder": str(folder / "teachers")},
        "data": {
            "path": str(folder / "data"), "task": "classification", "max_length": 32,
            "text_columns": ["text", "other"][: trial.columns],
        },
        "objective": {name: {} for name in trial.terms},
        "training": {
            "output_dir": str(folder / "run"), "max_steps": 3, "per_device_train_batch_size": 8, "use_cpu": True,
            "report_to": "none", "disable_tqdm": True, "logging_steps": 1,
        },
        "run": {"accept_weak_teacher": True},
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return [str(folder / "recipe.yaml")]


PADDING_MATTERS = ("Canine", "FNet", "Funnel", "Mra", "Nystromformer", "Reformer", "Yoso", "BigBird")
"""Families that score a text otherwise when it is padded, or take it no other way."""


def own_accuracy(trial: Trial, folder: Path) -> float:
    """Score the teacher with plain transformers, a text at a time."""
    tokenizer = TOKENIZERS[trial.tokenizer]()
    config = AutoConfig.from_pretrained(folder / "teacher")
    config.chunk_size_feed_forward, config.return_dict = 0, True  # the first takes some lengths only
    model = AutoModelForSequenceClassification.from_pretrained(folder / "teacher", config=config, dtype=torch.float32)
    model.eval()
    names, right, rows = NAMES[trial.names], 0, rows_of(trial, 13, 13)
    for row in rows.itertuples(index=False):
        inputs = tokenizer(*row[: trial.columns], truncation=True, max_length=32, return_tensors="pt")
        if "token_type_ids" in inputs and (getattr(model.config, "type_vocab_size", None) or 2) < 2:
            inputs["token_type_ids"].zero_()
        if trial.family in ("DistilBert", "Flaubert", "XLM"):
            inputs.pop("token_type_ids", None)
        with torch.no_grad():
            best = int(model(**inputs, return_dict=True).logits.argmax())
        said = names[best] if set(names) == {"no", "yes"} else ("no", "yes")[best]
        right += said == row[-1]
    return right / len(rows)


def faults_of(trial: Trial, folder: Path, capsys) -> str | None:
    """Run a trial; return what is wrong with its end, or None."""
    arguments = prepare(trial, folder)
    capsys.readouterr()
    try:
        code = distill(arguments)
    except BaseException:
        return traceback.format_exc()[-1500:]
    error = capsys.readouterr().err
    if "Traceback" in error:
        return error[-1500:]
    if code == 2:
        return None if "expected" in error and len(error) < 3000 else f"a message of another form: {error[:1500]}"
    if code != 0:
        return f"exit code {code}: {error[-1500:]}"
    results = json.loads((folder / "run" / "results.json").read_text())
    if (results["rows"]["train"], results["rows"]["evaluation"]) != (24, {"test": 13}):
        return f"rows {results['rows']}"
    student = AutoModelForSequenceClassification.from_pretrained(folder / "run" / "student")
    if not all(bool(weight.isfinite().all()) for weight in student.parameters()):
        return "a student that is not finite"
    if [student.config.id2label[i] for i in range(2)] != ["no", "yes"]:
        return f"a student with classes {student.config.id2label}"
    if trial.family in PADDING_MATTERS:
        return None
    said, own = results["teacher"]["metrics"]["accuracy"], own_accuracy(trial, folder)
    if not math.isclose(said, own, abs_tol=1e-6):
        return f"a teacher of {said:.3f}, which plain transformers gives {own:.3f}"
    return None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(0)
def test_runs_end_right_or_in_words(tmp_path, capsys, monkeypatch):
    """Prevents tracebacks, lost rows, exchanged classes and teachers that are not what they were."""
    minutes, start = float(os.environ.get("FUZZ_MINUTES", 10)), time.monotonic()
    first = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**6))
    ended, found = collections.Counter(), {}
    for seed in range(first, first + 100_000):
        if time.monotonic() - start > 60 * minutes:
            break
        trial, folder = drawn(seed), tmp_path / str(seed)
        folder.mkdir()
        fault = faults_of(trial, folder, capsys)
        ended["refused" if not (folder / "run" / "results.json").is_file() else "whole"] += 1
        if fault:
            found[seed] = (trial, fault)
    with capsys.disabled():
        print(f"\n{sum(ended.values())} runs from FUZZ_SEED={first}: {dict(ended)}, {len(found)} faults")
    assert not found, "\n\n".join(f"{trial}\n{fault}" for trial, fault in found.values())
    assert ended["whole"] > ended["refused"] / 3, ended
