"""Whole runs of each kind of task, on tiny models, for tests of what comes after a run."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from distil_nlp.cli import distill
from tests.helpers import ROOT, squad, tiny
from tests.helpers.ranking import queries
from tests.helpers.runs import Place
from tests.pipeline import test_multilabel as multilabel
from tests.pipeline import test_tokens as tokens
from tests.pipeline.test_embedding import EmbeddingPlace

SHORT = ("student.num_layers=2", "training.max_steps=2", "evaluation.baselines=[]", "evaluation.efficiency=off")


def _classification(place: Place) -> None:
    place.prepare()
    place.teacher(_named(tiny.classifier(4, initializer_range=0.3), ["no", "yes"]))
    place.run(*SHORT)


def _regression(place: Place) -> None:
    place.teacher(tiny.classifier(4, 1, problem_type="regression", initializer_range=0.3))
    rows = Dataset.from_dict({"text": place.texts, "label": [float(i % 6) for i in range(len(place.texts))]})
    place.save({"train": rows, "validation": rows.select(range(9))})
    place.run(*SHORT, "data.task=regression")


def _multilabel(place: Place) -> None:
    place.teacher(multilabel.teacher(initializer_range=0.3))
    Dataset.from_dict(multilabel.rows()).to_json(place.folder / "rows.jsonl")
    _recipe(place, "multilabel", place.folder / "rows.jsonl")


def _ranking(place: Place) -> None:
    place.teacher(tiny.classifier(4, 1, initializer_range=0.3))
    queries(20).to_json(place.folder / "pairs.jsonl")
    _recipe(place, "ranking", place.folder / "pairs.jsonl", "data.group_size=3")


def _tokens(place: Place) -> None:
    place.teacher(_named(tiny.tagger(4, 4, initializer_range=0.3), tokens.NAMES))
    place.save({"train": tokens.sentences(), "validation": tokens.sentences(ending=["and"])})
    place.run(*SHORT, *tokens.DATA)


def _qa(place: Place) -> None:
    place.teacher(tiny.reader(4, initializer_range=0.3))
    rows = {name: squad.dataset(squad.questions(16, seed)) for seed, name in enumerate(("train", "validation"))}
    place.save(rows)
    columns = ("data.text_columns=[question,context]", "data.label_column=answers")
    place.run(*SHORT, "data.task=qa", *columns, "data.max_length=24", "data.stride=4")


def _mlm(place: Place) -> None:
    place.teacher(tiny.mlm_model(4, initializer_range=0.3))
    (place.folder / "text.txt").write_text("\n".join(place.texts * 4))
    text = ("data.task=mlm", f"data.path={place.folder / 'text.txt'}", "data.text_columns=null")
    place.run(*SHORT, *text, "data.max_length=16", "data.held_out_share=0.3", "training.train_sampling_strategy=random")


MAKERS = {
    "classification": _classification,
    "regression": _regression,
    "multilabel": _multilabel,
    "ranking": _ranking,
    "tokens": _tokens,
    "qa": _qa,
    "mlm": _mlm,
}


def run_of(kind: str, folder: Path) -> Path:
    """Distil a tiny model on a task of a kind; return the folder of the run."""
    if kind == "embedding":
        embeddings = EmbeddingPlace(folder)
        assert embeddings.run(*SHORT) == 0
        return embeddings.out
    place = Place(folder)
    MAKERS[kind](place)
    assert (place.out / "results.json").is_file()
    return place.out


def _named(model, names):
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    return model


def _recipe(place: Place, name: str, data: Path, *more: str) -> None:
    distill([
        str(ROOT / f"recipes/{name}.yaml"), f"teacher.name={place.folder / 'teacher'}", f"data.path={data}",
        "data.max_length=32", "training.use_cpu=true", "run.accept_weak_teacher=true",
        "training.per_device_train_batch_size=8", f"training.output_dir={place.out}", "training.disable_tqdm=true",
        *SHORT, *more,
    ])  # fmt: skip
