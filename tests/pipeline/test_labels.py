"""Terms that look at labelled rows alone, on data without labels."""

import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from distil_nlp.cli import main
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import ModelShape
from distil_nlp.tasks import KINDS
from tests.helpers import ROOT, tiny
from tests.helpers.messages import one_line
from tests.helpers.ranking import queries
from tests.helpers.runs import Place

pytestmark = pytest.mark.integration

SHAPE = ModelShape(2, 32, 4, feed_forward=64, num_labels=3)
NEEDED = {"labelled": "labels", "pairs": "pairs"}
"""Row set that a term is counted over → what it finds no row without."""


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_each_term_knows_the_labels_that_it_needs(kind):
    """Prevents a term of labelled rows that trains on nothing, and one that needs no labels from being refused."""
    for term in (term() for term in TERMS.values() if term.applies_to(kind)):
        said = term.needed_labels(kind)
        term.bind(kind, SHAPE, SHAPE)
        assert said == NEEDED.get(term.counted_rows()), term.name


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path)


def write(place, rows, scored):
    DatasetDict({"train": rows, "validation": scored}).save_to_disk(place.folder / "data")


def with_labels(rows, column, values):
    features = rows.features
    return Dataset.from_dict({**rows.to_dict(), column: values}, features=features)


GRADES = {
    "no labels": ([None] * 16, "expected labelled training rows (data.label_column=label) / got no label in 16 rows"),
    "all of them relevant": ([1] * 16, "got the same relevance for all documents of each query"),
    "one of each query": ([1, None, None, None] * 4, "got the same relevance for all documents of each query"),
}


@pytest.mark.parametrize("case", GRADES)
def test_a_reranker_without_pairs_is_refused(place, capsys, case):
    """Prevents margins of no pair of documents: a term that is 0 in every step, and a student that learns nothing."""
    grades, words = GRADES[case]
    place.teacher(tiny.classifier(4, 1))
    write(place, with_labels(queries(4, offset=20), "label", grades), queries(3))
    common = [
        str(ROOT / "recipes/ranking.yaml"), f"teacher.name={place.folder / 'teacher'}", "data.path=data",
        "data.max_length=32", "training.use_cpu=true", "data.group_size=4", "objective.hard_label=null",
        "training.per_device_train_batch_size=8", f"training.output_dir={place.out}", "evaluation.baselines=[]",
        "training.eval_strategy=no", "training.load_best_model_at_end=false",
    ]  # fmt: skip
    for name in ("distill", "check"):
        assert main([name, *common]) == 2
        said = one_line(capsys.readouterr().err)
        assert words in said
        assert "take listwise_kl, which needs none: objective.margin_mse=null objective.listwise_kl={}" in said
    assert not place.out.exists()
    assert main(["check", *common, "objective.margin_mse=null", "objective.listwise_kl={}"]) == 0


def test_a_classifier_without_labels_learns_from_its_teacher_alone(place, capsys):
    """Prevents a term on labels that quietly takes no part."""
    place.prepare()
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    count = len(place.texts)
    rows = {"text": place.texts, "label": [None] * count}
    scored = {"text": [f"{text} and" for text in place.texts], "label": [i % 2 for i in range(count)]}
    write(place, *(Dataset.from_dict(one, features=features) for one in (rows, scored)))
    assert place.run(f"data.path={place.folder / 'data'}", "training.max_steps=1") == 2
    assert "leave it out (objective.hard_label=null)" in one_line(capsys.readouterr().err)
