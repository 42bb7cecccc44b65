"""What a stranger's files, a careless recipe or a published run could do: leak a secret, or write somewhere else."""

import json
import logging
import os
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path

import datasets
import pytest
import torch
from datasets import ClassLabel, Dataset, load_dataset
from huggingface_hub import constants

from distil_nlp.cli import distill, make_report, push_to_hub
from distil_nlp.data import commit_of_data, load_splits
from distil_nlp.errors import UserError
from distil_nlp.models import load_model, load_tokenizer
from distil_nlp.pipeline import findings, publication
from distil_nlp.redaction import abbreviate_home, redact
from distil_nlp.results import read_results
from distil_nlp.tasks import Head
from distil_nlp.utils.files import write_atomically
from distil_nlp.utils.logging import get_logger, redact_logs
from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place
from tests.hub.test_repository import hub

__all__ = ["hub"]
TOKEN = "hf_" + "Qx7" * 11 + "Q"
HOSTILE = ("../../evil", "<script>alert(1)</script>")
"""Names of classes, as a stranger's data may have them."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and a token in the environment; the working directory is somewhere else."""
    home = tmp_path / "homes" / "anna"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return home


@pytest.fixture
def without_report(monkeypatch):
    """A report takes seconds, and so do latencies and the likeness of layers."""
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    monkeypatch.setattr(
        findings, "measure_efficiency", lambda *args, **kwargs: {"teacher": {}, "student": {}, "efficiency": {}}
    )
    monkeypatch.setattr(findings, "compare_models", lambda *args, **kwargs: {})


def files_with(text, *folders):
    return [path for folder in folders for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


# Secrets ------------------------------------------------------------------------------------------------------


def test_a_whole_run_keeps_the_token_and_the_home_folder_to_itself(hub, home, monkeypatch, capfd):
    """Prevents a credential on disk, in a log or on the Hub, and a name or folder structure in what others see. What
    stays in checkpoints and TensorBoard's files is transformers' own, and is not published. Classes are named so that
    they would run as a script, or lead out of the folder."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)  # `hub` takes it away
    hub.tokens[TOKEN] = "me"
    place = Place(home / "projects").prepare()
    model = tiny.classifier(4)
    model.config.id2label, model.config.label2id = dict(enumerate(HOSTILE)), {name: i for i, name in enumerate(HOSTILE)}
    place.teacher(model)
    rows = Dataset.from_dict({"text": place.texts, "label": [i % 2 for i in range(24)]})
    rows = rows.cast_column("label", ClassLabel(names=list(HOSTILE)))
    place.save({"train": rows, "test": rows})
    monkeypatch.setattr(publication, "stop_verdict", lambda run: None)  # a student that guesses would not be pushed
    before = {path.parent for path in home.rglob("*")}
    options = ["teacher.finetune={max_steps: 2}", "training.report_to=tensorboard", "hub.push=true", "hub.repo_id=me/x"]
    options += [f"teacher.cache={{folder: {home / 'caches'}}}"]
    capfd.readouterr()
    assert place.run(*options) == 0
    printed, complained = capfd.readouterr()
    *lines, last = printed.strip().splitlines()
    assert last == str(place.out / "results.json")  # as it was given: what reads it expands no ~
    assert "~/projects/run/report/report.html" in "\n".join(lines)
    assert str(home) not in "\n".join(lines) + complained
    assert TOKEN not in printed + complained
    assert not files_with(TOKEN.encode(), home, Path.cwd())
    named = files_with(str(home).encode(), place.out, home / "teachers", home / "caches")
    assert {path.name for path in named if "tfevents" not in path.name} <= {"trainer_state.json", "training_args.bin"}
    published = hub.repos["me/x"].files
    assert {"README.md", "results.json", "report/report.md"} <= published.keys()
    for name, content in published.items():
        assert not [word for word in (TOKEN, str(home), "anna", "projects") if word.encode() in content], name
    page = (place.out / "report" / "report.html").read_text()
    assert "&lt;script&gt;" in page
    assert page.count("<script") == 1  # the page's own, which alone its policy lets run
    assert "<script" not in published["README.md"].decode().replace("`<script", "")
    assert not [path for path in home.parent.parent.rglob("*evil*")]
    new = {path.parent for path in home.rglob("*")} - before
    assert all(path.is_relative_to(place.out) or path.parts[len(home.parts)] in ("caches", "projects") for path in new)
    for again in ([str(place.out / "recipe.yaml"), *options], place.command(*options)):
        assert distill(again) == 0  # what is kept can be carried on from
        assert "this run is finished" in capfd.readouterr().out


SECRETS = {
    "a token": (["training.hub_token=abc123"], "abc123", "training.hub_token: expected it left out"),
    "a token in an address": (
        [f"teacher.name=https://{TOKEN}@huggingface.co/me/x"],
        TOKEN,
        "teacher.name: expected no",
    ),
    "a password": (["data.path=https://anna:pa55word@host/rows.csv"], "pa55word", "data.path: expected no token"),
    "a signature": (["data.path=https://host/rows.csv?X-Amz-Signature=5ecre7"], "5ecre7", "data.path: expected no"),
    "a folder": ([f"training.output_dir=runs/{TOKEN}"], TOKEN, "training.output_dir: expected no token"),
    "a list": ([f"teacher.ensemble=[{TOKEN}]"], TOKEN, "teacher.ensemble: expected no token"),
    "a wrong value": ([f"training.seed={TOKEN}"], TOKEN, "training.seed: expected"),
    "no YAML": ([f"data.path=[{TOKEN}"], TOKEN, "expected a YAML value"),
    "an option": (["--token", TOKEN], TOKEN, "unrecognized arguments: --token hf_…"),
}


@pytest.mark.parametrize("name", SECRETS)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(home, capfd, name):
    """Prevents a credential in recipe.yaml, results and card, and in the very message that complains about it."""
    overrides, secret, message = SECRETS[name]
    recipe = home / "r.yaml"
    recipe.write_text("teacher: {name: a}\ndata: {path: b, task: mlm}\nobjective: {hard_label: {}}\n")
    with suppress(SystemExit):  # argparse's way
        assert distill([str(recipe), *overrides]) == 2
    printed = "".join(capfd.readouterr())
    assert message in printed
    assert secret not in printed
    assert not files_with(secret.encode(), home, Path.cwd())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"no file {TOKEN}.csv", "no file hf_….csv"),
        ("git clone https://me:pw@host/x", "git clone https://…@host/x"),
        ("hf://datasets/me/x@main/a.parquet", "hf://datasets/me/x@main/a.parquet"),
        ("GET /x?rev=2&access_token=abc&y=1", "GET /x?rev=2&access_token=…&y=1"),
        ("Illegal header value b'Bearer abc.def'", "Illegal header value b'Bearer …'"),
        ("my_ghp_" + "a1" * 18, "my_ghp_…"),
        ("AKIA" + "A1" * 8, "AKIA…"),
        ("hf_hub_download, risk-averse-and-more-words", "hf_hub_download, risk-averse-and-more-words"),
        ("HOME/x HOME, (HOME) file://HOME/y", "~/x ~, (~) file://~/y"),
        ("HOMEbert /mntHOME HOME.old HOME-2/x", "HOMEbert /mntHOME HOME.old HOME-2/x"),
    ],
)
def test_messages_show_no_secret_and_no_home_folder(home, capsys, caplog, text, shown):
    """Prevents a token that is quoted by an error, and words, names or other people's folders that are cut up."""
    text, shown = (one.replace("HOME", str(home)) for one in (text, shown))
    get_logger("distil_nlp.tests").info(text)
    assert capsys.readouterr().out == f"{shown}\n"
    factory = logging.getLogRecordFactory()
    redact_logs()
    logging.getLogger("accelerate").warning("%s", text)
    logging.setLogRecordFactory(factory)
    assert {record.name for record in caplog.records} >= {"accelerate"}
    assert set(caplog.messages) == {shown}  # pytest 9.1 has the package's own record as well
    assert str(UserError(text)) == redact(text) == shown


@pytest.mark.parametrize("name", ["/", ""])
def test_where_there_is_no_home_nothing_is_shortened(monkeypatch, name):
    """Prevents a container without a home folder from turning every slash into a tilde."""
    monkeypatch.setenv("HOME", name)
    assert abbreviate_home({"a": ["/data/x", 3]}) == {"a": ["/data/x", 3]}


# Places -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "data.task=../../evil",
        "data.name=../../evil",
        "data.train_split=../../evil",
        "data.evaluation_splits=[../../evil]",
        "data.text_columns=[../../evil]",
        "data.label_column=../../evil",
        "hub.repo_id=../../evil",
    ],
)
def test_no_name_leads_out_of_the_output_folder(home, monkeypatch, override):
    """Prevents a recipe's names from becoming paths; the output folder is made of the task's here."""
    place = Place(home / "x").prepare()
    before = sorted(home.parent.parent.rglob("*"))
    recipe, _, *rest = place.command("hub.push=true", override)
    assert distill([recipe, *rest]) == 2
    assert not [path for path in home.parent.parent.rglob("*") if "evil" in str(path)]
    assert {path.relative_to(home).parts[1] for path in set(home.rglob("*")) - set(before)} <= {"tiny.yaml"}


@pytest.mark.integration
def test_a_link_in_a_run_does_not_lead_out_of_it(home, without_report, monkeypatch, capsys):
    """Prevents a run that somebody sent from overwriting or publishing this machine's own files."""
    place = Place(home / "x").prepare()
    assert place.run() == 0
    private = home / ".ssh"
    private.mkdir()
    for name in ("report", "student/vocab.txt", "checkpoint-7"):
        (place.out / name).symlink_to(private)
        push = partial(push_to_hub, [str(place.out), "--repo-id", "x"])
        for call in (place.run, partial(make_report, [str(place.out)]), push):
            assert call() == 2
            assert f"got {name}, which leads to ~/.ssh" in one_line(capsys.readouterr().err)
        (place.out / name).unlink()
    for name, other in (("round", "circle"), ("circle", "round")):
        (place.out / name).symlink_to(other)
    assert place.run() == 2
    assert "which leads to" in capsys.readouterr().err
    for name in ("round", "circle"):
        (place.out / name).unlink()
    assert not list(private.iterdir())
    place.out.rename(home / "elsewhere")
    place.out.symlink_to(home / "elsewhere")  # the folder itself may lie on another disk
    (place.out / "here").symlink_to(place.out / "student")
    assert place.run() == 0


def test_a_file_that_is_a_link_is_replaced_not_followed(tmp_path):
    """Prevents a write through a link that appears between the check and the write."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "results.json").symlink_to(tmp_path / "mine")
    write_atomically(tmp_path / "results.json", "new")
    assert ((tmp_path / "mine").read_text(), (tmp_path / "results.json").read_text()) == ("mine", "new")


@pytest.mark.parametrize("file", ["weights.bin", "../other/model.safetensors", "/etc/model.safetensors"])
@pytest.mark.parametrize("said_by", ["index", "config"])
def test_no_other_weights_than_safetensors_beside_the_configuration(tmp_path, file, said_by):
    """Prevents a pickle that transformers would read, safetensors asked for or not, because an index names it."""
    model = tiny.mlm_model(2)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "weights.bin")
    config = tmp_path / "config.json"
    if said_by == "config":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"transformers_weights": file}))
    else:
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(model.state_dict(), file)}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"which is no safetensors file beside config\.json"):
        load_model(str(tmp_path), Head("mlm"))


def test_shards_of_safetensors_are_read(tmp_path):
    """Prevents a large model from being refused because it comes in parts."""
    tiny.mlm_model(2).save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    assert torch.equal(load_model(str(tmp_path), Head("mlm")).state_dict()["cls.predictions.bias"],
                       tiny.mlm_model(2).state_dict()["cls.predictions.bias"])  # fmt: skip


def test_a_tokenizers_templates_become_no_files(tmp_path):
    """Prevents a template's name from leading out of the student's folder, or from ending a run after training."""
    source, out = tmp_path / "a" / "source", tmp_path / "a" / "b" / "out"
    tiny.tokenizer().save_pretrained(source)
    path = source / "tokenizer_config.json"
    templates = [{"name": name, "template": "x"} for name in ("default", "../../../evil")]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": templates}))
    load_tokenizer(str(source)).save_pretrained(out)
    assert {file.name for file in out.iterdir()} == {"tokenizer.json", "tokenizer_config.json"}
    assert not list(tmp_path.rglob("*evil*"))


# Revisions ----------------------------------------------------------------------------------------------------

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def on_hub(home, monkeypatch):
    """A place whose teacher and data are on the Hub, as their caches know them: each with two commits."""
    place = Place(home / "x").prepare()
    cache, arrow = home / "hub", home / "datasets"
    for kind in ("models", "datasets"):
        repo = cache / f"{kind}--me--{kind}"
        for commit in (OLD, NEW):
            if kind == "models":
                shutil.copytree(place.folder / "teacher", repo / "snapshots" / commit)
            else:
                (repo / "snapshots" / commit).mkdir(parents=True)
                (repo / "snapshots" / commit / "README.md").write_text("rows")
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(NEW)
    files = {split: str(next((place.folder / "data").glob(f"{split}*"))) for split in ("train", "test")}
    loaded = load_dataset("parquet", data_files=files, cache_dir=str(arrow))
    folder = Path(loaded["train"].cache_files[0]["filename"]).parent
    shutil.copytree(folder, arrow / "me___datasets" / "default" / "0.0.0" / OLD)
    for file in (arrow / "me___datasets").rglob("parquet-*"):
        file.rename(file.with_name(file.name.replace("parquet", "datasets")))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(arrow))
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return place


@pytest.mark.integration
def test_revisions_are_pinned_and_the_commits_recorded(on_hub, without_report):
    """Prevents figures of which nobody can say what they were taken with; a fine-tuned teacher is that of its start."""
    names = ["teacher.name=me/models", "data.path=me/datasets"]
    assert on_hub.run(*names, "student.name=me/models", f"student.revision={OLD}") == 0
    results = read_results(on_hub.out / "results.json")
    assert results["teacher"]["revisions"] == {"me/models": NEW}
    assert results["student"]["initialisation"]["revision"] == OLD
    assert results["data"]["revision"] == OLD
    assert f"revision `{OLD}`" in (on_hub.out / "student" / "README.md").read_text()
    tuned = [*names, "teacher.finetune={max_steps: 1}", "run.overwrite=true", f"data.revision={OLD}"]
    for _ in range(2):  # trained, and read from where it is kept
        assert on_hub.run(*tuned, f"teacher.revision={OLD}") == 0
        assert read_results(on_hub.out / "results.json")["teacher"]["revisions"] == {"me/models": OLD}


def test_another_commit_of_the_data_than_the_pinned_one_is_refused(on_hub, capsys):
    """Prevents training on other rows without a word: offline, `datasets` takes any commit that it has."""
    assert on_hub.run("data.path=me/datasets", f"data.revision={NEW}") == 2
    assert f"data.revision: expected me/datasets at {NEW} / got {OLD}" in one_line(capsys.readouterr().err)


def test_local_data_have_no_commit(on_hub):
    """Prevents a folder's data from being taken for the Hub's."""
    path = str(on_hub.folder / "data")
    assert commit_of_data(path, None, load_splits(path)) is None
    assert os.environ["HOME"] == str(on_hub.folder.parent)
