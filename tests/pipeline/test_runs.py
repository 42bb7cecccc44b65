"""Whole runs through the command line, on tiny models and data written to disk: what a user types and gets."""

import json
import re
import shutil

import pytest
import torch
import transformers
import yaml
from datasets import ClassLabel, Dataset, load_dataset
from huggingface_hub import ModelCard

from distil_nlp.cli import distill, evaluate_glue, main
from distil_nlp.evaluation.fidelity import compare_models
from distil_nlp.pipeline import findings, preflight, publication
from distil_nlp.pipeline.teacher import DONE
from distil_nlp.results.predictions import read_predictions
from tests.helpers import tiny
from tests.helpers.families import classifier_of
from tests.helpers.messages import one_line
from tests.helpers.runs import Place


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch, request):
    """Reports take seconds; `test_a_run_ends_with_report_and_card` sees them."""
    if "with_pictures" not in request.keywords:
        monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def test_a_run_leaves_the_folder_that_was_promised(place, capsys):
    """Prevents a run that ends without student, scores or the path of its results."""
    assert place.run() == 0
    printed = capsys.readouterr().out.strip().splitlines()
    assert printed[-1] == str(place.out / "results.json")
    assert any(line.startswith("student  ") for line in printed)
    results = place.results
    assert results["schema_version"] == 2
    assert results["task"] == "classification"
    for role in ("teacher", "student"):
        assert {"parameters", "encoder_parameters", "size_mb", "metrics"} <= results[role].keys()
    assert results["student"]["encoder_parameters"] * 2 == results["teacher"]["encoder_parameters"]
    assert results["student"]["initialisation"]["teacher_layers"] == [1, 3]
    assert results["retention"] == results["student"]["metrics"]["accuracy"] / results["teacher"]["metrics"]["accuracy"]
    assert results["baselines"].keys() == {"majority", "copied_only"}
    assert results["training"]["steps"] == 6
    assert results["training"]["tokens"] == sum(len(tiny.tokenizer()(text)["input_ids"]) for text in place.texts)
    assert results["training"]["final_terms"].keys() == {
        "soft_target_kl",
        "hard_label",
        "hidden_cosine",
        "attention_kl",
    }
    assert results["recipe"]["student"]["layers"] == "every_other"
    kept = yaml.safe_load((place.out / "recipe.yaml").read_text())
    assert kept["objective"] == {name: {"weight": 1.0} for name in results["training"]["final_terms"]}
    assert "student" not in kept


def test_every_evaluation_row_is_kept_with_its_predictions(place, capsys):
    """Prevents rows of another place in the data, texts that stay after they were left out, and a second training."""
    options = ["data.evaluation_splits=[validation, test]", "data.max_evaluation_rows=5"]
    assert place.run(*options) == 0
    rows = read_predictions(place.out).to_pylist()
    data = {name: load_dataset(str(place.folder / "data"))[name] for name in ("validation", "test")}
    assert len(rows) == 10
    for row in rows:
        source = data[row["split"]][row["row"]]
        assert (row["text"], row["label"]) == (source["text"], ["no", "yes"][source["label"]])
        assert row["student_error"] == float(row["student"] != row["label"])
        assert 0.5 <= row["teacher_probability"] <= 1
    accuracy = 1 - sum(row["student_error"] for row in rows[:5]) / 5
    assert place.results["student"]["metrics"]["accuracy"] == pytest.approx(accuracy)
    assert sum(place.results["breakdown"]["changes"].values()) == 5
    assert capsys.readouterr().out.splitlines()[-2].startswith(("stop:", "caution:", "note:", "good:"))
    assert place.run(*options, "evaluation.show_rows=false") == 0
    assert "text" not in read_predictions(place.out).column_names
    assert "training the student" not in capsys.readouterr().out


@pytest.mark.with_pictures
def test_a_run_ends_with_report_and_card(place, capsys):
    """Prevents figures that nobody sees: a run shows its scores by itself."""
    assert place.run("evaluation.baselines=[no_distillation]", "evaluation.efficiency=full") == 0
    results = place.results
    assert {"flops_per_token", "peak_memory_mib"} <= results["student"].keys() & results["teacher"].keys()
    settings = [(one["batch_size"], one["lengths"]) for one in results["efficiency"]["latency"]]
    assert {*settings} == {(size, lengths) for size in (1, 8, 32) for lengths in ("data", "max_length")}
    assert all(one["models"].keys() == {"teacher", "student"} for one in results["efficiency"]["latency"])
    assert {"agreement", "kl", "ece", "cka", "confusion"} <= results["fidelity"].keys()
    assert [entry["step"] for entry in results["training"]["history"]] == [2, 4, 6]
    assert (place.out / "report" / "report.html").is_file()
    assert (place.out / "report" / "report.md").is_file()
    card = ModelCard.load(place.out / "student" / "README.md")
    assert card.data.eval_results[0].metric_value == pytest.approx(results["student"]["metrics"]["accuracy"], abs=1e-4)
    assert "labels only" in capsys.readouterr().out


@pytest.mark.integration
def test_a_quick_look_is_measured_in_full_later(place, capsys):
    """Prevents minutes of timing for a try of two steps, and a student that is trained again for its latencies."""
    assert place.run() == 0
    assert place.results["efficiency"] is None
    assert "not measured (evaluation.efficiency: off)" in capsys.readouterr().out
    trained = (place.out / "student" / "model.safetensors").stat().st_mtime_ns
    assert place.run("evaluation.efficiency=quick") == 0
    results = place.results
    assert [(one["batch_size"], one["lengths"]) for one in results["efficiency"]["latency"]] == [
        (1, "data"),
        (32, "data"),
    ]
    assert "flops_per_token" in results["student"]
    assert "peak_memory_mib" not in results["student"]
    assert (place.out / "student" / "model.safetensors").stat().st_mtime_ns == trained
    assert "this run is finished" not in capsys.readouterr().out
    assert place.run("evaluation.efficiency=quick") == 0
    assert "this run is finished" in capsys.readouterr().out


@pytest.mark.integration
def test_a_try_compares_layers_on_few_rows(place, monkeypatch):
    """Prevents a comparison of layers that takes longer than the training of a try."""
    compared = []
    monkeypatch.setattr(
        findings,
        "compare_models",
        lambda *models, **how: compared.append(how["cka_rows"]) or compare_models(*models, **how),
    )
    assert place.run("training.max_steps=1", "training.per_device_train_batch_size=4") == 0
    assert place.run("training.max_steps=100", "training.per_device_train_batch_size=4", "run.overwrite=true") == 0
    assert compared == [4, 128]


def test_a_finished_run_is_pushed_unless_the_student_guesses(place, monkeypatch, capsys):
    """Prevents a push that needs another training, or that happens without hub.push, or of a student of no use."""
    pushed, options = [], ("hub.push=true", "hub.repo_id=me/x", "hub.private=true")
    monkeypatch.setattr(preflight, "check_repository", lambda name, private: None)
    monkeypatch.setattr(publication, "push", lambda folder, name, private: pushed.append((folder, name, private)))
    assert place.run() == 0
    assert pushed == []
    for student in (0.5, 0.4):  # as the majority class, and below it
        set_accuracies(place, teacher=0.9, student=student, majority=0.5)
        assert place.run(*options) == 0
        *_, reason, remedy, path = capsys.readouterr().out.splitlines()
        assert reason.startswith("not pushed to me/x: Do not use this student, which knows no more than a guess")
        assert remedy.endswith(f"distil-nlp push-to-hub {place.out} --repo-id me/x --private")
        assert path == str(place.out / "results.json")
    assert pushed == []
    set_accuracies(place, teacher=0.9, student=0.8, majority=0.5)
    assert place.run(*options) == 0
    assert pushed == [(place.out, "me/x", True)]
    assert "finished" in capsys.readouterr().out


def set_accuracies(place, *, teacher, student, majority):
    """Write other accuracies into the results of a finished run."""
    results = place.results
    results["teacher"]["metrics"]["accuracy"] = teacher
    results["student"]["metrics"]["accuracy"] = student
    results["seeds"]["accuracy"] |= {"values": [student], "median": student}
    results["baselines"]["majority"]["metrics"]["accuracy"] = majority
    (place.out / "results.json").write_text(json.dumps(results))


def test_plain_transformers_loads_the_student(place):
    """Prevents a student that only this package can read, or one with keys of the training in it."""
    assert place.run() == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place.out / "student")
    assert model.config.num_hidden_layers == 2
    assert model.config.id2label == {0: "no", 1: "yes"}
    from safetensors.torch import load_file

    saved = load_file(place.out / "student" / "model.safetensors")
    assert saved.keys() == tiny.classifier(2).state_dict().keys()
    assert not (place.out / "student" / "training_args.bin").exists()
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    assert classify("the cat sees the dog .")[0]["label"] in ("no", "yes")


def test_the_same_command_again_is_finished(place, capsys):
    """Prevents a finished run from being trained again, or overwritten."""
    place.run()
    before = (place.out / "results.json").stat().st_mtime_ns
    capsys.readouterr()
    assert place.run() == 0
    printed = capsys.readouterr().out
    assert "finished" in printed
    assert printed.strip().splitlines()[-1] == str(place.out / "results.json")
    assert (place.out / "results.json").stat().st_mtime_ns == before


def test_another_recipes_folder_is_refused(place, capsys):
    """Prevents two runs mixed in one folder: the message names what differs, and nothing is lost."""
    place.run()
    assert place.run("training.learning_rate=3e-4") == 2
    assert "training.learning_rate was None, is 0.0003" in capsys.readouterr().err
    assert (place.out / "results.json").is_file()
    assert place.run("training.learning_rate=3e-4", "run.overwrite=true") == 0
    assert place.results["recipe"]["training"]["learning_rate"] == 3e-4


def test_a_folder_with_other_files_is_refused(place, capsys):
    """Prevents a run from being poured over somebody's files."""
    place.out.mkdir()
    (place.out / "thesis.tex").write_text("years of work")
    assert place.run() == 2
    assert "with other files" in capsys.readouterr().err


def test_an_unfinished_run_is_carried_on_and_ends_the_same(place, monkeypatch):
    """Prevents starting over after an interruption, or ending with other weights than an uninterrupted run."""
    from distil_nlp.training import fit

    place.run()
    whole = (place.out / "student" / "model.safetensors").read_bytes()
    tokens = place.results["training"]["tokens"]
    shutil.rmtree(place.out)
    monkeypatch.setattr(fit, "_save", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert place.run() == 130
    shutil.rmtree(place.out / "checkpoint-6")
    monkeypatch.undo()
    assert place.run() == 0
    assert place.results["training"]["resumed_from"] == "checkpoint-4"
    assert place.results["training"]["tokens"] == tokens
    assert (place.out / "student" / "model.safetensors").read_bytes() == whole


def test_a_run_stopped_after_training_is_only_scored(place, monkeypatch):
    """Prevents training again, or a training of no seconds in the results, where only the score was missing."""
    from distil_nlp.pipeline import students as variants

    place.run()
    before = place.results["training"]
    (place.out / "results.json").unlink()
    monkeypatch.setattr(variants.StudentRun, "trainer", lambda *args: pytest.fail("trained again"))
    assert place.run() == 0
    assert place.results["training"] == before


def test_a_run_that_failed_early_can_be_mended(place):
    """Prevents a folder that is locked by a recipe which never trained."""
    assert place.run("training.train_sampling_strategy=batch_rebalance") == 2
    assert place.run() == 0


@pytest.mark.integration
def test_overwriting_moves_the_old_run_away(place):
    """Prevents the loss of a student, or of somebody's files, by one switch."""
    place.run()
    (place.out / "notes.txt").write_text("mine")
    student = (place.out / "student" / "model.safetensors").read_bytes()
    assert place.run("run.overwrite=true", "student.layers=first") == 0
    old = place.out.with_name("run.previous")
    assert (old / "notes.txt").read_text() == "mine"
    assert (old / "student" / "model.safetensors").read_bytes() == student
    (place.out / "results.json").unlink()
    assert place.run("run.overwrite=true", "student.layers=last") == 0  # an unfinished run does not push it out
    assert (old / "notes.txt").read_text() == "mine"
    shutil.rmtree(place.out)
    place.out.mkdir()
    (place.out / "thesis.tex").write_text("years of work")
    assert place.run("run.overwrite=true") == 2


ALL_BASELINES = "evaluation.baselines=[no_distillation, random_init, copied_only]"


def test_seeds_and_baselines_are_trained_and_compared(place):
    """Prevents a gain that is claimed of one lucky seed, or over a baseline of other steps, rows or weights."""
    assert place.run("evaluation.seeds=2", ALL_BASELINES) == 0
    results = place.results
    assert results["seeds"]["accuracy"]["seeds"] == [42, 43]
    assert results["seeds"]["accuracy"]["values"][0] == results["student"]["metrics"]["accuracy"]
    assert results["baselines"].keys() == {"majority", "copied_only", "no_distillation", "random_init"}
    for name in ("no_distillation", "random_init"):
        baseline = results["baselines"][name]
        assert baseline["seeds"]["accuracy"]["seeds"] == [42, 43]
        gain = baseline["gain"]
        ours, theirs = results["seeds"]["accuracy"]["values"], baseline["seeds"]["accuracy"]["values"]
        assert gain["mean"] == pytest.approx((sum(ours) - sum(theirs)) / 2)
        assert gain["low"] <= gain["mean"] <= gain["high"]
        assert (gain["rows"], gain["seeds"]) == (9, 2)
    seeded = [f"{name}-{seed}" for name in ("no_distillation", "random_init") for seed in (42, 43)]
    assert [folder.name for folder in place.variants] == ["distilled-43", *seeded]
    assert all(
        {file.name for file in folder.iterdir()} == {"outputs.npz", "training.json"} for folder in place.variants
    )
    spent = {folder.name: json.loads((folder / "training.json").read_text()) for folder in place.variants}
    assert all(training["steps"] == results["training"]["steps"] for training in spent.values())
    assert spent["no_distillation-42"]["final_terms"].keys() == {"hard_label"}
    assert spent["random_init-42"]["final_terms"].keys() == results["training"]["final_terms"].keys()


@pytest.mark.integration
def test_a_student_that_is_done_is_not_trained_again(place, monkeypatch):
    """Prevents paying twice after an interruption, or for the first student when more are asked for later."""
    from distil_nlp.pipeline import students as variants

    trained, train = [], variants.StudentRun.train

    def spy(workshop, *args, **kwargs):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append((workshop.folder.name, workshop.args.seed, workshop.args.max_steps))
        return train(workshop, *args, **kwargs)

    monkeypatch.setattr(variants.StudentRun, "train", spy)
    assert place.run() == 0
    single = place.results["student"]["metrics"]
    assert place.run("evaluation.seeds=2", "evaluation.baselines=[no_distillation]") == 130
    assert trained == [("run", 42, -1), ("distilled-43", 43, -1)]
    trained.clear()
    assert place.run("evaluation.seeds=2", "evaluation.baselines=[no_distillation]") == 0
    assert trained == [("no_distillation-42", 42, 6), ("no_distillation-43", 43, 6)]
    assert place.results["student"]["metrics"] == single
    assert place.run("evaluation.seeds=2", "evaluation.baselines=[no_distillation]") == 0
    assert len(trained) == 2


@pytest.mark.integration
def test_the_command_of_the_report_adds_seeds(place, monkeypatch):
    """Prevents advice that raises an error, and that an overwrite would then follow: the folder may be named or not."""
    monkeypatch.chdir(place.folder)
    recipe = place.command()[0]
    assert distill([recipe]) == 0
    (folder,) = (place.folder / "runs").iterdir()
    before = (folder / "student" / "model.safetensors").stat().st_mtime_ns
    assert distill([str(folder / "recipe.yaml"), f"training.output_dir={folder}", "evaluation.seeds=2"]) == 0
    assert json.loads((folder / "results.json").read_text())["seeds"]["accuracy"]["seeds"] == [42, 43]
    assert (folder / "student" / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_stopped_before_its_report_gets_it(place):
    """Prevents a finished run that is never shown."""
    place.run()
    (place.out / "student" / "README.md").unlink()
    assert place.run() == 0
    assert (place.out / "student" / "README.md").is_file()


def test_labels_alone_need_labels(place, capsys):
    """Prevents a baseline that fails after hours of training."""
    rows = Dataset.from_dict({"text": place.texts, "label": [None] * len(place.texts)})
    rows = rows.cast_column("label", ClassLabel(names=["no", "yes"]))
    rows.to_parquet(place.folder / "data" / "train-00000-of-00001.parquet")
    assert place.run("evaluation.baselines=[no_distillation]", "objective.hard_label=null") == 2
    assert "expected some labelled training rows" in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_labels_alone_see_labelled_rows_alone(place, monkeypatch):
    """Prevents a teacher and a baseline whose batches are half empty, which would make distillation look good."""
    from distil_nlp.pipeline import students as variants
    from distil_nlp.pipeline import teacher

    labels = [i % 2 if i < 10 else None for i in range(len(place.texts))]
    place.classes(label=labels)
    texts = [f"{text} and" for text in place.texts]
    tested = Dataset.from_dict({"text": texts, "label": [i % 2 for i in range(len(texts))]})
    tested.cast_column("label", ClassLabel(names=["no", "yes"])).to_parquet(
        place.folder / "data" / "test-00000-of-00001.parquet"
    )
    seen, build_trainer = [], variants.DistillationTrainer

    def spy(**arguments):
        seen.append(len(arguments["train_dataset"]))
        return build_trainer(**arguments)

    monkeypatch.setattr(variants, "DistillationTrainer", spy)
    monkeypatch.setattr(teacher, "DistillationTrainer", spy)
    assert place.run("teacher.finetune={max_steps: 2}", "evaluation.baselines=[no_distillation]") == 0
    assert seen == [10, 24, 10]


@pytest.mark.integration
def test_each_seed_may_have_its_own_teacher(place):
    """Prevents `reseed` from being a word without effect."""
    own = ["teacher.finetune={max_steps: 2}", "teacher.reseed=true", "evaluation.seeds=2"]
    assert place.run(*own) == 0
    assert len(list((place.folder / "teachers").glob(f"*/{DONE}"))) == 2
    assert place.results["teacher"]["seeds"]["accuracy"]["seeds"] == [42, 43]


def test_idle_cores_are_told(place, monkeypatch, capsys):
    """Prevents hours at half speed: `accelerate launch` gives one thread."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(preflight, "cpu_cores", lambda: 64)
    monkeypatch.setattr(preflight.torch, "get_num_threads", lambda: 1)
    assert place.run("data.path=./nowhere") == 2
    assert "using 1 of 64 CPU cores; with OMP_NUM_THREADS=64, or `distil-nlp launch`" in capsys.readouterr().out


@pytest.mark.integration
def test_edited_data_is_another_teacher(place, capsys):
    """Prevents a teacher of the old labels from teaching the new ones."""
    once = ["teacher.finetune={max_steps: 2}", "run.overwrite=true"]
    assert place.run(*once) == 0
    rows = Dataset.from_dict({"text": place.texts, "label": [(i + 1) % 2 for i in range(24)]})
    rows = rows.cast_column("label", ClassLabel(names=["no", "yes"]))
    place.save({"train": rows, "test": rows})
    capsys.readouterr()
    assert place.run(*once) == 0
    assert "fine-tuned now" in capsys.readouterr().out


def test_the_teacher_is_fine_tuned_once_and_reused(place, capsys):
    """Prevents paying for the teacher in every run, and reusing one that was trained otherwise."""
    tiny.mlm_model(4).save_pretrained(place.folder / "teacher")
    assert place.run("teacher.finetune={max_steps: 2}") == 0
    assert "fine-tuned now" in capsys.readouterr().out
    assert place.run("teacher.finetune={max_steps: 2}", "run.overwrite=true", "training.seed=1") == 0
    assert "fine-tuned by an earlier run" in capsys.readouterr().out
    assert place.run("teacher.finetune={max_steps: 3}", "run.overwrite=true") == 0
    assert "fine-tuned now" in capsys.readouterr().out
    assert len(list((place.folder / "teachers").glob(f"*/{DONE}"))) == 2


def test_without_a_head_the_teacher_must_be_trained(place, capsys):
    """Prevents distilling noise; the message names the remedy."""
    tiny.mlm_model(4).save_pretrained(place.folder / "teacher")
    assert place.run() == 2
    assert "teacher.finetune" in capsys.readouterr().err


def test_the_best_checkpoint_is_chosen_on_rows_of_no_score(place, monkeypatch):
    """Prevents choosing by the very rows that the score is reported on."""
    from distil_nlp.pipeline import students as variants

    chosen_by, build_trainer = [], variants.DistillationTrainer

    def spy(**arguments):
        chosen_by.append(len(arguments["eval_dataset"]))
        return build_trainer(**arguments)

    monkeypatch.setattr(variants, "DistillationTrainer", spy)
    often = ["training.eval_strategy=steps", "training.eval_steps=2", "training.load_best_model_at_end=true"]
    assert place.run(*often, "evaluation.early_stopping_patience=2") == 0
    assert place.results["training"]["best_checkpoint"].startswith("checkpoint-")
    assert chosen_by == [7]  # validation; the score is that of the nine rows of test


def test_early_stopping_needs_a_best_checkpoint(place, capsys):
    """Prevents early stopping that keeps the last checkpoint."""
    assert place.run("evaluation.early_stopping_patience=2") == 2
    assert "load_best_model_at_end" in capsys.readouterr().err


@pytest.mark.integration
def test_segments_and_pairs_in_distilbert_classes(place):
    """Prevents a pair task on a student without segments from failing, or its tokenizer from making them."""
    rows = Dataset.from_dict({"a": place.texts, "b": place.texts[::-1], "label": [0.5 * i for i in range(24)]})
    place.save({"train": rows, "validation": rows.map(lambda row: {"b": f"{row['b']} new"})})
    place.teacher(tiny.classifier(4, num_labels=1))
    pair = ["data.task=regression", "data.text_columns=[a, b]", "student.architecture=distilbert", "data.max_length=48"]
    assert place.run(*pair) == 0
    assert place.results["headline"] == "pearson"
    tokenizer = transformers.AutoTokenizer.from_pretrained(place.out / "student")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    encoded = tokenizer("the cat", "a dog", return_tensors="pt")
    assert "token_type_ids" not in encoded
    assert model(**encoded).logits.shape == (1, 1)


@pytest.mark.parametrize("streaming", [False, pytest.param(True, marks=pytest.mark.integration)], ids=["map", "stream"])
def test_language_modelling_end_to_end(place, streaming):
    """Prevents a corpus that works only as a file or only as a stream; the majority baseline is a unigram model."""
    text = Dataset.from_dict({"text": place.texts * 60})
    place.save({"train": text})
    place.teacher(tiny.mlm_model(4))
    options = [
        "data.task=mlm",
        "data.max_length=16",
        f"data.streaming={str(streaming).lower()}",
        "training.max_steps=4",
    ]
    options += ["data.held_out_share=0.3", "data.max_evaluation_rows=20", "training.train_sampling_strategy=random"]
    assert place.run(*options, "data.masking={whole_words: true, rare_token_power: 0.7}") == 0
    results = place.results
    assert results["headline"] == "accuracy"
    assert results["student"]["metrics"]["perplexity"] > 1
    assert 1 < results["baselines"]["majority"]["metrics"]["perplexity"] < len(tiny.VOCABULARY)
    model = transformers.AutoModelForMaskedLM.from_pretrained(place.out / "student")
    tokenizer = transformers.AutoTokenizer.from_pretrained(place.out / "student")
    assert transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)("the [MASK] sees")


@pytest.mark.integration
def test_a_narrower_random_student(place):
    """Prevents projections of other widths from reaching the exported student."""
    narrow = ["student.layers=random", "student.num_layers=1", "objective.attention_kl.heads=average"]
    assert place.run(*narrow, "student.config={hidden_size: 16, num_attention_heads: 2}") == 0
    model = transformers.AutoModelForSequenceClassification.from_pretrained(place.out / "student")
    assert model.config.hidden_size == 16
    assert not [name for name in model.state_dict() if "projection" in name]


@pytest.mark.integration
def test_a_student_from_a_checkpoint_goes_on(place):
    """Prevents two-stage distillation from needing a hand-made script."""
    place.run()
    shutil.copytree(place.out / "student", place.folder / "stage1")
    assert place.run("run.overwrite=true", f"student.name={place.folder / 'stage1'}") == 0
    assert place.results["student"]["initialisation"]["checkpoint"].endswith("stage1")


MISTAKES = {
    "unknown task": (["data.task=mrpcc"], r"data.task: expected mlm, .*got 'mrpcc'.*did you mean mrpc\?"),
    "tags of tokens": (["data.task=token_classification"], r"got 'token_classification' / .* did you mean tokens"),
    "answers": (["data.task=squad"], r"got 'squad' / there is no such task / did you mean qa\?"),
    "no columns": (["data.text_columns=null"], r"data.text_columns: expected the text column"),
    "missing column": (["data.text_columns=[sentence]"], r"sentence cannot be read"),
    "missing data": (["data.path=./nowhere"], r"\./nowhere / got no such file"),
    "missing teacher": (["teacher.name=./nowhere"], r"\./nowhere, which does not exist"),
    "too deep": (["student.num_layers=9"], r"student.layers: expected stack or interpolate for a student of 9 layers"),
    "no such layer": (["student.layers=[1, 7]"], r"numbers from 0 to 3 / got \[7\]"),
    "groups to replace": (
        ["student.layers=first", "student.replacing={}"],
        r"student.replacing: expected student.layers that increase and end at the .* last layer, 3 / got \[0, 1\]",
    ),
    "random layers to replace": (["student.layers=random", "student.replacing={}"], r"got student.layers=random"),
    "replacing in other classes": (
        ["student.architecture=distilbert", "student.replacing={}"],
        r"student.replacing: expected student.architecture=same",
    ),
    "replacing without attention": (["student.replacing={}"], r"student.replacing: expected terms on outputs, hidden"),
    "replacing at another width": (
        ["student.replacing={}", "student.config={hidden_size: 16}"],
        r"student.config.hidden_size: expected the teacher's 32 with student.replacing",
    ),
    "augment and exits": (
        [
            "student.augment={}",
            "student.exits=[1]",
            *[f"objective.{t}.weight=0" for t in ("hidden_cosine", "attention_kl")],
        ],
        r"student.augment: expected a student that trains alone",
    ),
    "augment compiled": (["student.augment={}", "training.torch_compile=true"], r"expected false with student.augment"),
    "replacing and random_init": (
        ["student.replacing={}", "evaluation.baselines=[random_init]"],
        r"evaluation.baselines: expected no random_init with student.replacing",
    ),
    "no such pair": (
        ["objective.hidden_cosine.layers=[[9, 1]]"],
        r"hidden_cosine.layers: expected teacher layers 0 to 3",
    ),
    "too long": (["data.max_length=65"], r"data.max_length: expected at most 64"),
    "nothing to learn": (
        [f"objective.{name}.weight=0" for name in ("soft_target_kl", "hard_label", "hidden_cosine", "attention_kl")],
        r"a term with a weight above 0",
    ),
    "heads": (["student.config={num_attention_heads: 2}"], r"got teacher 4, student 2.*heads=average"),
    "masked rows": (["objective.hidden_cosine.rows=masked"], r"classification masks no tokens"),
    "stream of a task": (["data.streaming=true", "training.max_steps=1"], r"data.streaming: expected false"),
    "stream without steps": (["data.streaming=true", "data.task=mlm"], r"training.max_steps: expected a number"),
    "label smoothing": (["training.label_smoothing_factor=0.1"], r"label_smoothing_factor"),
    "pushing nowhere": (["hub.push=true"], r"hub.repo_id: expected a name such as me/my-student"),
    "best by a term of the teacher": (
        [
            "evaluation.baselines=[no_distillation]",
            "training.eval_strategy=epoch",
            "training.metric_for_best_model=hidden_cosine",
        ],
        r"metric_for_best_model: expected one of accuracy, f1_macro, hard_label, loss / got hidden_cosine",
    ),
    "a seed twice": (["evaluation.seeds=[1, 1]"], r"evaluation.seeds: expected different seeds"),
    "two first seeds": (["evaluation.seeds=[1, 2]", "training.seed=3"], r"training.seed the first of them"),
    "reseeded, and a shape for each": (
        ["teacher.reseed=true", "teacher.finetune={}", "student.budget={flops: 0.5}", "evaluation.seeds=2"],
        r"teacher.reseed: expected false with student.budget and several seeds",
    ),
    "reseeded, not trained": (["teacher.reseed=true"], r"teacher.reseed: expected a teacher that is fine-tuned"),
    "random beside random": (["student.layers=random", "evaluation.baselines=[random_init]"], r"leave random_init out"),
    "unknown metric": (
        ["training.metric_for_best_model=acuracy", "training.eval_strategy=epoch"],
        r"metric_for_best_model: expected one of accuracy, .*got acuracy",
    ),
    "student twice described": (["student.name=TEACHER", "student.layers=first"], r"student.name: .*got layers too"),
    "masking of a task": (["data.masking.probability=0.3"], r"got data.masking too / they would have no effect"),
    "rows of a task": (["objective.soft_target_kl.rows=all"], r"got objective.soft_target_kl.rows too"),
    "two columns of text": (["data.task=mlm", "data.text_columns=[a, b]"], r"got a second of data.text_columns"),
    "columns of GLUE": (["data.task=sst2", "data.label_column=gold"], r"got data.text_columns, data.label_column too"),
    "changed depth": (["student.config={num_hidden_layers: 3}"], r"student.config: .*got num_hidden_layers"),
    "impossible width": (["student.config={hidden_size: abc}"], r"student.config: expected a possible configuration"),
    "clash": (
        ["training.load_best_model_at_end=true"],
        r"training.load_best_model_at_end: expected values that Trainer takes together",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_get_one_message_and_exit_code_2(place, capsys, name):
    """Prevents tracebacks for what a user can mend, and folders left behind by runs that never began."""
    overrides, message = MISTAKES[name]
    assert place.run(*overrides) == 2
    error = one_line(capsys.readouterr().err)
    assert error.splitlines()[-1].startswith("error: ")  # after the progress bars
    assert "Traceback" not in error
    assert not (place.out / "results.json").exists()
    assert re.search(message, " ".join(error.split())), error


def test_gated_units_are_refused_before_anything_is_loaded(place, capsys):
    """Prevents a teacher that is fine-tuned for a student that no wider net can be made of."""
    place.teacher(classifier_of("ModernBert"))
    assert place.run("student.augment={}") == 2
    error = one_line(capsys.readouterr().err)
    assert "student.augment: expected a feed-forward layer of 64 units in each block of ModernBert" in error
    assert not place.out.exists()


def test_other_labels_than_the_teachers_are_refused(place, capsys):
    """Prevents classes mixed up between teacher and data."""
    rows = Dataset.from_dict({"text": place.texts, "label": ["yes", "maybe"] * 12})
    place.save({"train": rows, "test": rows})
    assert place.run() == 2
    assert "maybe, yes" in capsys.readouterr().err


def test_another_vocabulary_is_refused_where_tokens_are_compared(place, capsys):
    """Prevents attention between words of one model that is learned as that between others."""
    other = place.folder / "other"
    tiny.classifier(2).save_pretrained(other)
    swapped = tiny.tokenizer().get_vocab()
    swapped["cat"], swapped["dog"] = swapped["dog"], swapped["cat"]
    transformers.BertTokenizerFast(vocab=swapped).save_pretrained(other)
    assert place.run(f"student.name={other}") == 2
    assert "got attention_kl" in one_line(capsys.readouterr().err)


def test_a_student_is_scored_on_glue(place, capsys):
    """Prevents a score that needs the training script; labels are GLUE's own."""
    place.folder.joinpath("glue").mkdir()
    rows = Dataset.from_dict({"sentence": place.texts, "label": [i % 2 for i in range(24)]})
    rows = rows.cast_column("label", ClassLabel(names=["negative", "positive"]))
    rows.to_parquet(place.folder / "glue" / "sst2.parquet")
    (place.folder / "glue" / "README.md").write_text(
        "---\nconfigs:\n- config_name: sst2\n  data_files:\n  - {split: train, path: sst2.parquet}\n"
        "  - {split: validation, path: sst2.parquet}\n---\n"
    )
    model = tiny.classifier(2)
    names = ["negative", "positive"]
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
    place.teacher(model)
    out = place.folder / "scores.json"
    command = [
        str(place.folder / "teacher"),
        "--tasks",
        "sst2",
        "--data",
        str(place.folder / "glue"),
        "--output",
        str(out),
    ]
    assert evaluate_glue(command) == 0
    with torch.no_grad():
        encoded = tiny.tokenizer()(place.texts, padding=True, return_tensors="pt")
        guesses = model(**encoded).logits.argmax(-1)
    right = (guesses == torch.arange(24) % 2).float().mean().item()
    assert json.loads(out.read_text())["tasks"]["sst2"]["accuracy"] == pytest.approx(right)
    assert f"accuracy {right:.4f}" in capsys.readouterr().out


def test_the_console_command_has_both_jobs(place, capsys):
    """Prevents a command that is installed and does nothing."""
    assert main([]) == 2
    printed = capsys.readouterr().err
    assert all(re.search(rf"^    {name}\s", printed, re.M) for name in ("distill", "evaluate-glue"))
    assert main(["distill", str(place.folder / "missing.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.integration
def test_one_cache_serves_all_students(place, capsys):
    """Prevents a teacher that runs again for every seed and baseline, or a cache that changes what they learn."""
    students = ("evaluation.seeds=2", "evaluation.baselines=[random_init,no_distillation]")
    assert place.run(*students) == 0
    plain = place.results
    shutil.rmtree(place.out)
    caches = place.folder / "caches"
    capsys.readouterr()
    assert place.run(*students, f"teacher.cache={{folder: {caches}, dtype: float32}}") == 0
    said = capsys.readouterr().out
    (folder,) = caches.iterdir()
    assert folder.name.startswith("teacher-classification-")
    assert said.count("asking") == 0
    assert said.count(f"teacher cache: {folder}\n") == 3
    for name, value in plain["training"]["final_terms"].items():
        assert place.results["training"]["final_terms"][name] == pytest.approx(value, rel=1e-4, abs=1e-6)
    assert place.results["baselines"]["random_init"]["metrics"] == plain["baselines"]["random_init"]["metrics"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.cache.top_k=8", "data.task=classification reads / got teacher.cache.top_k too"),
        (
            "teacher.cache.dtype=float8",
            "teacher.cache.dtype: expected 'float32', 'float16' or 'bfloat16' / got 'float8'",
        ),
        ("teacher.cache.topk=8", "teacher.cache.topk: unknown key; did you mean top_k"),
    ],
)
def test_mistakes_about_the_cache_are_told(place, capsys, override, message):
    """Prevents a setting that is silently without effect."""
    assert place.run(override) == 2
    assert message in one_line(capsys.readouterr().err)


def test_no_cache_of_a_stream(place, capsys):
    """Prevents a stop after the corpus was opened."""
    assert place.run("data.task=mlm", "data.streaming=true", "training.max_steps=2", "teacher.cache={}") == 2
    assert "teacher.cache: expected data.streaming=false / got true" in one_line(capsys.readouterr().err)


@pytest.mark.integration
def test_an_ensemble_teaches_and_is_scored_as_one(place, capsys):
    """Prevents a second teacher that is loaded and not run; three fine-tunings of one model, each with its seed."""
    teacher = str(place.folder / "teacher")
    tuned = ("teacher.finetune={max_steps: 2}", "teacher.cache={folder: " + str(place.folder / "caches") + "}")
    assert place.run(f"teacher.ensemble=[{teacher}, {teacher}]", *tuned) == 0
    assert capsys.readouterr().out.count("fine-tuned now") == 3
    folders = list((place.folder / "teachers").iterdir())
    assert len(folders) == 3
    single = transformers.AutoModelForSequenceClassification.from_pretrained(folders[0] / "model")
    assert place.results["teacher"]["parameters"] == 3 * sum(one.numel() for one in single.parameters())
    assert place.results["teacher"]["encoder_parameters"] > 2 * place.results["student"]["encoder_parameters"]
    assert "an ensemble of 3 teachers" in (place.out / "student" / "README.md").read_text()


@pytest.mark.integration
def test_a_run_may_move_to_another_cache_folder(place, capsys):
    """Prevents advice (name a larger disk) that ends in "another recipe's run"."""
    for folder in ("one", "two"):
        assert place.run(f"teacher.cache={{folder: {place.folder / folder}}}") == 0
    assert "this run is finished" in capsys.readouterr().out
    assert not (place.folder / "two").exists()


def test_all_teachers_of_an_ensemble_need_the_positions(place, capsys):
    """Prevents an index error on a device, deep in training."""
    tiny.classifier(2, max_position_embeddings=16).save_pretrained(place.folder / "short")
    assert place.run(f"teacher.ensemble=[{place.folder / 'short'}]") == 2
    assert "data.max_length: expected at most 16, the positions of" in one_line(capsys.readouterr().err)


def test_an_ensemble_of_other_words_is_refused(place, capsys):
    """Prevents distributions over words that are numbered differently from being averaged."""
    other = place.folder / "other"
    tiny.classifier(4).save_pretrained(other)
    words = list(tiny.VOCABULARY)
    words[7], words[8] = words[8], words[7]
    transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}).save_pretrained(other)
    (place.folder / "text.txt").write_text("\n".join(tiny.SENTENCES * 20))
    data = [f"data.path={place.folder / 'text.txt'}", "data.task=mlm", "data.text_columns=null"]
    assert place.run(f"teacher.ensemble=[{other}]", *data) == 2
    assert "expected one vocabulary for teacher and student" in capsys.readouterr().err
