"""Whole runs of rerankers: scores by query, report, card, and what plain libraries make of the student."""

import json

import pytest
from transformers import AutoConfig, pipeline

from distil_nlp.cli import main
from distil_nlp.results.predictions import read_predictions
from tests.helpers import ROOT, tiny
from tests.helpers.messages import one_line
from tests.helpers.ranking import queries
from tests.helpers.runs import Place


def teacher(**changes):
    return tiny.classifier(4, 1, initializer_range=0.3, **changes)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with a cross-encoder and a file of queries and documents."""
    monkeypatch.chdir(tmp_path)
    place = Place(tmp_path)
    place.teacher(teacher())
    queries(20).to_json("pairs.jsonl")
    return place


def command(place, name="distill", *more):
    return [
        name, str(ROOT / "recipes/ranking.yaml"), f"teacher.name={place.folder / 'teacher'}", "data.path=pairs.jsonl",
        "data.max_length=32", "training.use_cpu=true", "training.max_steps=3", "run.accept_weak_teacher=true",
        "data.group_size=3", "training.per_device_train_batch_size=8", f"training.output_dir={place.out}",
        "evaluation.efficiency=off", "training.disable_tqdm=true", "evaluation.baselines=[]", *more,
    ]  # fmt: skip


@pytest.mark.with_pictures
def test_a_run_ranks_the_documents_of_queries(place, capsys):
    """Prevents scores of documents beside other queries, and a student that transformers reads in another way."""
    assert main(command(place, "distill", "evaluation.baselines=[no_distillation]", "evaluation.seeds=2")) == 0
    said = capsys.readouterr().out
    results = place.results
    assert (results["task"], results["headline"]) == ("ranking", "ndcg_at_10")
    assert set(results["student"]["metrics"]) == {"ndcg_at_10", "mrr_at_10"}
    assert "NDCG@10" in said
    assert results["recipe"]["teacher"]["finetune"] is None  # it is trained already
    assert results["baselines"]["majority"]["metrics"]["ndcg_at_10"] == 1.0  # relevant documents share their noun
    assert set(results["fidelity"]) >= {"kendall_tau", "same_top"}
    assert results["baselines"]["no_distillation"]["gain"]["rows"] == 4  # queries
    relevant = {(row["query"], row["document"]): row["label"] for row in queries(20)}
    kept = read_predictions(place.out).to_pylist()
    assert [row["row"] for row in kept] == [*range(16)]
    assert [row["label"] for row in kept] == [relevant[row["text"], row["text_pair"]] for row in kept]
    texts = {name: (place.out / name).read_text() for name in ("report/report.md", "student/README.md")}
    for text in texts.values():
        assert "word overlap (TF-IDF)" in text
        assert "paired bootstrap over 4 queries and 2 seeds" in text.replace("\xa0", " ")
        assert "put the same document first for" in text
    card = texts["student/README.md"]
    assert 'function_to_apply="none"' in card
    assert "queries without a relevant document" in card
    assert "hofstatter2020improving" in card
    assert AutoConfig.from_pretrained(place.out / "student").num_labels == 1
    history = results["training"]["history"]
    assert any("eval_ndcg_at_10" in entry and entry["eval_margin_mse"] >= 0 for entry in history)


def test_plain_libraries_score_as_the_run_did(place):
    """Prevents a student whose folder is read as something else by transformers or sentence-transformers."""
    from sentence_transformers import CrossEncoder

    assert main(command(place)) == 0
    folder = str(place.out / "student")
    pairs = [("cat j", "see cat"), ("cat j", "see dog by the house")]
    found = pipeline("text-classification", folder)(
        [{"text": query, "text_pair": document} for query, document in pairs], function_to_apply="none"
    )
    student = pipeline("text-classification", folder)
    logits = [student.model(**student.tokenizer(*pair, return_tensors="pt")).logits.item() for pair in pairs]
    assert [one["score"] for one in found] == pytest.approx(logits, abs=1e-5)
    probabilities = CrossEncoder(folder, device="cpu").predict(pairs)  # of one output: σ(score)
    assert probabilities == pytest.approx([one["score"] for one in student(
        [{"text": query, "text_pair": document} for query, document in pairs]
    )], abs=1e-5)  # fmt: skip


def test_a_check_counts_the_steps_of_whole_queries(place, capsys):
    """Prevents steps of all documents, where an epoch reads some of each query."""
    assert main(command(place, "check", "training.max_steps=-1", "training.num_train_epochs=2")) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "14 of 8 rows" in said  # 14 queries of 3 documents, two in a batch of 8: 7 steps an epoch


@pytest.mark.integration
def test_an_encoder_without_a_head_is_fine_tuned_first(place, capsys):
    """Prevents a teacher whose head is random, or one of two classes."""
    place.teacher(tiny.mlm_model(4))
    assert main(command(place, "distill", "teacher.finetune.max_steps=2")) == 0
    assert place.results["recipe"]["teacher"]["finetune"]["max_steps"] == 2
    place.teacher(tiny.classifier(4, 2))
    assert main(command(place, "distill", "teacher.finetune=null", "run.overwrite=true")) == 2
    assert "teacher" in one_line(capsys.readouterr().err)


REFUSED = {
    "a small batch": (["training.per_device_train_batch_size=2"], "expected 3 rows or more, as many as"),
    "lengths": (["training.train_sampling_strategy=group_by_length"], "where the documents of a query share a batch"),
    "soft targets": (["objective.soft_target_kl={}"], "outputs here are a score by which the documents of a query"),
    "a softmax": (["objective.reverse_kl={}"], "objective.reverse_kl: expected "),
    "two passes": (["objective.r_drop={}"], "objective.r_drop: expected "),
    "vectors": (["objective.embedding_cosine={}"], "objective.embedding_cosine: expected "),
    "mixtures": (["data.augmentation.mixup={}"], "data.augmentation"),
    "the last epoch": (
        ["teacher.self=last_epoch", "objective.hidden_cosine=null", "objective.attention_kl=null"],
        "expected a class or a number",
    ),
    "groups of another kind": (["data.task=regression", "objective.listwise_kl=null", "objective.margin_mse=null"],
                               "data.group_size"),
    "a column that is not there": (["data.group_column=search"], "expected a column 'search'"),
    "another name": (["data.task=reranking"], "did you mean ranking?"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_said(place, capsys, case):
    """Prevents keys that are not read, terms of one distribution over classes, and queries that are cut."""
    overrides, words = REFUSED[case]
    assert main(command(place, "distill", *overrides)) == 2
    assert words in one_line(capsys.readouterr().err)
    assert not place.out.exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    "scheme",
    [
        "student.exits={after: [1]}", "student.peers={models: 2}", "student.branches={models: 2}",
        "student.generations=2", "teacher.assistants=[{num_layers: 3}]", "teacher.ensemble=[TEACHER]",
        "student.replacing={}", "teacher.cache={}", "teacher.self=ema",
    ],
)  # fmt: skip
def test_training_schemes_rank(place, scheme):
    """Prevents a scheme that knows classes and numbers alone, or batches of other rows."""
    scheme = scheme.replace("TEACHER", str(place.folder / "teacher"))
    alone = ["objective.hidden_cosine=null", "objective.attention_kl=null", f"teacher.folder={place.folder / 'links'}"]
    assert main(command(place, "distill", scheme, *alone)) == 0
    assert json.loads((place.out / "results.json").read_text())["student"]["metrics"]["ndcg_at_10"] > 0
    assert place.results
