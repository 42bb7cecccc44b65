"""Whole runs on sentence embeddings: what they leave, and what they refuse in words."""

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import rankdata
from transformers import AutoModel, BertModel

from distil_nlp.cli import check, distill
from distil_nlp.hub.run_files import files_of_run
from distil_nlp.models import load_model
from distil_nlp.pipeline import kept_outputs, students
from distil_nlp.results import schema_mismatches
from distil_nlp.results.predictions import read_predictions
from distil_nlp.tasks import Head
from tests.helpers import tiny
from tests.helpers.processes import forked_pair
from tests.helpers.sentences import ST_RECIPE, pairs, save_teacher


class EmbeddingPlace:
    """A folder with a sentence-transformers teacher, pairs, a recipe, and a way to run it."""

    def __init__(self, folder, **teacher):
        self.folder, self.out = folder, folder / "run"
        self.teacher = save_teacher(folder / "teacher", **teacher)
        self.save({"train": pairs(), "validation": self.scored()})

    def save(self, splits):
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "data").mkdir()
        for name, rows in splits.items():
            rows.to_parquet(self.folder / "data" / f"{name}-00000-of-00001.parquet")

    def scored(self):
        """Pairs of other texts, whose scores are the teacher's own cosines: it is better than any word overlap."""
        rows = pairs(9).to_dict()
        rows["sentence1"] = [f"{text} and not" for text in rows["sentence1"]]
        vectors = [vectors_of(self.teacher.bert, rows[name]) for name in ("sentence1", "sentence2")]
        return Dataset.from_dict({**rows, "score": (vectors[0] * vectors[1]).sum(1).tolist()})

    def command(self, *overrides):
        text = ST_RECIPE.replace("TEACHER", str(self.folder / "teacher")).replace("DATA", str(self.folder / "data"))
        (self.folder / "tiny.yaml").write_text(text)
        return [str(self.folder / "tiny.yaml"), f"training.output_dir={self.out}", *overrides]

    def run(self, *overrides):
        return distill(self.command(*overrides))

    @property
    def results(self):
        results = json.loads((self.out / "results.json").read_text())
        assert schema_mismatches(results) == []
        return results


def vectors_of(encoder, texts):
    """Return mean vectors of length 1 from a plain encoder, written by hand."""
    batch = tiny.tokenizer()(list(texts), padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        states = encoder.eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()


@pytest.fixture
def place(tmp_path):
    return EmbeddingPlace(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, which several tests look at."""
    place = EmbeddingPlace(tmp_path_factory.mktemp("finished"))
    assert place.run() == 0
    return place


def test_a_run_on_pairs_is_scored(finished):
    """Prevents a kind that is trained and not scored against data and teacher."""
    results = finished.results
    assert (results["task"], results["headline"]) == ("embedding", "spearman_cosine")
    metrics, teacher = results["student"]["metrics"], results["teacher"]["metrics"]
    assert metrics.keys() == {"spearman_cosine", "pearson_cosine", "spearman_asymmetric", "teacher_cosine"}
    assert teacher["spearman_cosine"] > 0.99
    assert teacher["teacher_cosine"] == pytest.approx(1)
    assert teacher["spearman_asymmetric"] == pytest.approx(teacher["spearman_cosine"])
    assert results["retention"] == pytest.approx(metrics["spearman_cosine"] / teacher["spearman_cosine"])
    assert results["baselines"].keys() == {"majority", "copied_only"}
    assert results["intervals"]["student"]["rows"] == 9
    assert results["rows"]["evaluation"] == {"validation": 9}
    assert results["fidelity"]["cosine"] == pytest.approx(metrics["teacher_cosine"])
    assert {"cosine_lowest", "same_neighbour", "cka"} <= results["fidelity"].keys()


def test_pairs_are_kept_with_their_cosines(finished):
    """Prevents texts beside the cosine of others."""
    rows, scored = read_predictions(finished.out).to_pylist(), finished.scored()
    assert [(row["text"], row["text_pair"], row["label"]) for row in rows] == [
        (row["sentence1"], row["sentence2"], row["score"]) for row in scored
    ]
    outputs = kept_outputs.load_outputs(finished.out / "outputs.npz")["validation"]
    first, second = outputs.predictions[0::2].astype(float), outputs.predictions[1::2].astype(float)
    cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
    assert [row["student"] for row in rows] == pytest.approx(cosines.tolist())
    ranks = np.abs(rankdata(cosines) - rankdata([row["score"] for row in scored])) / (len(rows) - 1)
    assert [row["student_error"] for row in rows] == pytest.approx(ranks.tolist())
    assert "changes" not in finished.results["breakdown"]


def test_report_and_card_have_the_kinds_words(finished):
    """Prevents a page that speaks of labels and classes, or a snippet that does not run."""
    files = ("report/report.md", "student/README.md")
    report, card = ((finished.out / path).read_text().replace("\xa0", " ") for path in files)
    assert "labels only" not in report + card
    assert "word overlap (TF-IDF)" in report
    assert "The vectors of student and teacher have a cosine of" in report
    assert "student = SentenceTransformer(" in report
    assert "library_name: sentence-transformers" in card
    assert "pipeline_tag: sentence-similarity" in card
    assert "validation` (9 rows)" in card
    assert 'model = SentenceTransformer("path/to/student")' in card
    files = files_of_run(finished.out, finished.results, "me/student")
    assert {"modules.json", "1_Pooling/config.json", "config_sentence_transformers.json"} <= files.keys()


def test_the_student_is_a_plain_encoder_with_the_scored_vectors(finished):
    """Prevents a student whose folder gives other vectors than those that were scored."""
    plain = AutoModel.from_pretrained(finished.out / "student")
    assert type(plain) is BertModel
    outputs = kept_outputs.load_outputs(finished.out / "outputs.npz")["validation"]
    texts = [text for row in finished.scored() for text in (row["sentence1"], row["sentence2"])]
    assert np.abs(vectors_of(plain, texts) - outputs.predictions).max() < 1e-5
    assert outputs.reference.shape == outputs.predictions.shape


def test_a_run_that_was_stopped_is_only_scored(finished, tmp_path, monkeypatch):
    """Prevents the teacher's vectors, against which scores are taken, from being lost between two starts."""
    before = finished.results
    (finished.out / "results.json").unlink()
    monkeypatch.setattr(students, "fit", lambda *args, **kwargs: pytest.fail("trained again"))
    assert finished.run() == 0
    assert finished.results["student"]["metrics"] == before["student"]["metrics"]


@pytest.mark.integration
def test_seeds_and_baselines(place):
    """Prevents a further student that is scored without the teacher's vectors."""
    assert place.run("evaluation.seeds=2", "evaluation.baselines=[random_init]") == 0
    results = place.results
    assert len(results["seeds"]["teacher_cosine"]["values"]) == 2
    assert "teacher_cosine" in results["baselines"]["random_init"]["metrics"]


def test_a_run_on_texts_alone(place):
    """Prevents texts without scores, which most data has, from being refused; the headline is the teacher's cosine."""
    texts = [f"{text} {word}" for text in tiny.SENTENCES for word in ("cat", "dog", "bird", "fish", "tree", "house")]
    place.save({"train": Dataset.from_dict({"text": texts})})
    assert place.run("data.text_columns=text", "data.label_column=label") == 0
    results = place.results
    assert (results["headline"], results["student"]["metrics"].keys()) == ("teacher_cosine", {"teacher_cosine"})
    assert results["retention"] == pytest.approx(results["student"]["metrics"]["teacher_cosine"])
    assert results["rows"]["held_out"] == "test"
    assert "TF-IDF" not in (place.out / "report" / "report.md").read_text()


@pytest.mark.integration
def test_a_narrower_student_and_the_best_checkpoint(place):
    """Prevents a Dense layer that is lost where the best checkpoint is loaded, and pairs that are torn in selection."""
    overrides = [
        *("training.eval_strategy=steps", "training.eval_steps=2", "training.load_best_model_at_end=true"),
        *("training.metric_for_best_model=spearman_cosine", "data.selection_share=0.25"),
        *("student.config.hidden_size=16", "student.config.intermediate_size=32"),
    ]
    assert place.run(*overrides) == 0
    student = load_model(str(place.out / "student"), Head("embedding"))
    assert student.dense.weight.shape == (32, 16)
    history = place.results["training"]["history"]
    assert any("eval_spearman_cosine" in entry for entry in history)


@pytest.mark.integration
@pytest.mark.integration
def test_a_chain_of_students(place):
    """Prevents an assistant that cannot be loaded as a teacher."""
    assert place.run("teacher.assistants=[{num_layers: 3}]", "student.num_layers=1") == 0
    assert place.results["schemes"]["links"]


def test_check_tells_the_run(place, capsys):
    """Prevents a dry run that reads pairs as one input, or trips over vectors."""
    assert check(place.command()) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "48 rows to train on, 9 to score on in validation" in out
    assert "embedding_similarity_kl, weight 1" in out


REFUSED = {
    "labels": (["evaluation.baselines=[no_distillation]"], "scores of pairs are for evaluation alone"),
    "finetune": (["teacher.finetune={}"], "trained with sentence-transformers before"),
    "self": (["teacher.self=ema"], "teacher.self"),
    "ensemble": (["teacher.ensemble=[TEACHER]"], "different spaces"),
    "exits": (["student.exits=[1]"], "student.exits"),
    "softmax": (["objective.soft_target_kl={}"], "outputs here are the vector of a text"),
    "hard labels": (["objective.hard_label={}"], "outputs here are the vector of a text"),
    "augmentation": (["data.augmentation.cutoff={}"], "augmentation"),
    "masking": (["data.masking.probability=0.3"], "data.masking"),
    "pooling": (["data.pooling=cls"], "expected mean, as the folder of"),
    "no such pooling": (["data.pooling=sum"], "data.pooling"),
    "no scores": (["data.label_column=other"], "name the column of scores"),
    "pooling elsewhere": (
        [
            *("data.task=regression", "data.pooling=cls", "objective.hard_label={}"),
            *("objective.embedding_cosine=null", "objective.embedding_similarity_kl=null"),
        ],
        "data.pooling too",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_get_one_message_and_exit_code_2(place, capsys, name):
    """Prevents a run that fails after hours, or that ignores a key."""
    overrides, message = REFUSED[name]
    assert place.run(*(text.replace("TEACHER", str(place.folder / "teacher")) for text in overrides)) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (place.out / "student").exists()


@pytest.mark.integration
def test_a_whole_run_in_two_processes(tmp_path):
    """Prevents pairs that are torn apart where two processes share the rows."""
    one, two = EmbeddingPlace(tmp_path / "one"), EmbeddingPlace(tmp_path / "two")
    terms = ["objective.embedding_similarity_kl=null", "training.max_steps=4"]
    assert one.run("training.per_device_train_batch_size=4", *terms) == 0
    forked_pair("scripts/distill.py", *two.command("training.per_device_train_batch_size=2", *terms))
    assert two.results["environment"]["processes"] == 2
    assert two.results["student"]["metrics"] == pytest.approx(one.results["student"]["metrics"], rel=1e-3)
