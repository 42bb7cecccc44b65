"""Publishing on a stand-in for the Hub: what goes up, what comes back, and what is said when it does not work."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import HfApi, ModelCard, constants, get_session
from huggingface_hub.errors import RepositoryNotFoundError

from distil_nlp import cli
from distil_nlp.errors import UserError
from distil_nlp.hub import check_repository, plan_upload, push, teacher_metadata, write_card
from tests.helpers import ROOT, tiny
from tests.helpers.hub import reachable_hub
from tests.helpers.messages import one_line
from tests.helpers.showcase import example, exits

TOKEN = "hf_ofme"
UPLOADED = {
    "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "results.json",
    "report/report.md", "report/loss.png",
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    """A running Hub, which this process may speak to."""
    with reachable_hub(monkeypatch, me=TOKEN, you="hf_ofyou") as hub:
        yield hub


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=TOKEN)


@pytest.fixture
def run(tmp_path):
    """A finished run as it lies on disk, with what must not go up beside it."""
    run = tmp_path / "runs" / "glue-mrpc-42"
    student = run / "student"
    tiny.classifier(2).save_pretrained(student)
    tiny.tokenizer().save_pretrained(student)
    results = example()
    results["recipe"]["training"] |= {"output_dir": str(run), "hub_token": "hf_" + "x" * 30}
    (run / "results.json").write_text(json.dumps(results))
    write_card(results, student)
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", "model.safetensors.partial", "notes.txt"):
        (student / name).write_text("state")
    (run / "checkpoint-10").mkdir()
    (run / "checkpoint-10" / "model.safetensors").write_text("state")
    (run / "training.json").write_text("{}")
    (run / "report").mkdir()
    (run / "report" / "report.md").write_text(f"![loss](loss.png) of {run}/results.json")
    (run / "report" / "report.html").write_text("<html>")
    (run / "report" / "loss.png").write_bytes(b"\x89PNG")
    return run


def client(hub, folder, token=None):
    """The environment of a process that takes the stand-in for the Hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0"}
    own |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**kept, **own, "NO_PROXY": "127.0.0.1,localhost", **({"HF_TOKEN": token} if token else {})}


PULL = """
import sys, torch, transformers
name, out = sys.argv[1:]
tokenizer = transformers.AutoTokenizer.from_pretrained(name)
model = transformers.AutoModelForSequenceClassification.from_pretrained(name)
encoded = tokenizer(["the cat sees the dog .", "a big red bird walked"], padding=True, return_tensors="pt")
torch.save({"logits": model(**encoded).logits.detach(), **encoded}, out)
"""


@pytest.mark.integration
def test_what_the_script_pushes_is_what_anybody_pulls(hub, run, tmp_path):
    """Prevents a model on the Hub that differs from the one that was scored, and files that nobody meant to publish."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    script = [sys.executable, str(ROOT / "scripts" / "push_to_hub.py"), str(run), "--repo-id", "me/x", "--yes"]
    done = subprocess.run(script, capture_output=True, text=True, env=client(hub, tmp_path, TOKEN), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    repo = hub.repos["me/x"]
    assert done.stdout.splitlines()[-1] == f"{hub.url}/me/x/commit/{repo.head}"
    assert repo.files.keys() == UPLOADED | {".gitattributes"}
    assert len(repo.commits) == 2  # the Hub's own first one, and ours
    puller = [sys.executable, "-c", PULL, "me/x", str(tmp_path / "pulled.pt")]
    subprocess.run(puller, check=True, env=client(hub, tmp_path), cwd=tmp_path)
    pulled = torch.load(tmp_path / "pulled.pt")
    encoded = tiny.tokenizer()(["the cat sees the dog .", "a big red bird walked"], padding=True, return_tensors="pt")
    assert torch.equal(pulled["input_ids"], encoded["input_ids"])
    with torch.no_grad():
        student = transformers.AutoModelForSequenceClassification.from_pretrained(run / "student")
        assert torch.equal(pulled["logits"], student(**encoded).logits)
    assert not hub.unknown
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_the_card_names_the_repository(hub, api, run):
    """Prevents a card on the Hub whose snippet points at a folder, or that the Hub refuses."""
    push(run, "me/x", api=api)
    text = hub.repos["me/x"].files["README.md"].decode()
    assert 'model="me/x"' in text
    assert text.endswith("[report](report/report.md).\n")
    assert "path/to/student" not in text
    card = ModelCard(text)
    assert card.data.model_name == "x"
    assert card.data.eval_results == [*ModelCard.load(run / "student" / "README.md").data.eval_results]


def test_an_authors_changes_to_the_card_stay(hub, api, run):
    """Prevents a hand-written paragraph from being overwritten by the upload."""
    card = run / "student" / "README.md"
    card.write_text(card.read_text() + "\nA word of mine.\n")
    push(run, "me/x", api=api)
    assert "A word of mine." in hub.repos["me/x"].files["README.md"].decode()


def test_a_run_from_before_there_were_cards_gets_one(hub, api, run):
    """Prevents a model without a card."""
    (run / "student" / "README.md").unlink()
    push(run, "me/x", api=api)
    assert ModelCard(hub.repos["me/x"].files["README.md"].decode()).data.pipeline_tag == "text-classification"
    assert not (run / "student" / "README.md").exists()


def test_no_path_and_no_token_goes_up(hub, api, run, tmp_path):
    """Prevents home directories and credentials on the Hub."""
    push(run, "me/x", api=api)
    files = hub.repos["me/x"].files
    assert not [name for name, content in files.items() if str(tmp_path).encode() in content or b"hf_x" in content]
    assert json.loads(files["results.json"])["recipe"]["training"]["output_dir"] == "glue-mrpc-42"
    assert files["report/report.md"] == b"![loss](loss.png) of results.json"


def test_the_students_exits_go_up_beside_it(hub, api, run):
    """Prevents a student of each depth that only its author has, and a card that names none."""
    for one in exits()["exits"]:
        tiny.classifier(2).save_pretrained(run / one["folder"])
        tiny.tokenizer().save_pretrained(run / one["folder"])
    results = json.loads((run / "results.json").read_text()) | exits()
    (run / "results.json").write_text(json.dumps(results))
    write_card(results, run / "student")
    (run / "exits" / "1-layers" / "optimizer.pt").write_text("state")
    push(run, "me/x", api=api)
    files = hub.repos["me/x"].files
    of_a_model = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    theirs = {f"exits/{layers}-layers/{name}" for layers in (1, 2) for name in of_a_model}
    assert files.keys() == UPLOADED | theirs | {".gitattributes"}
    text = files["README.md"].decode()
    assert "| exit after 2\xa0layers | 0.818 | 0.814 to 0.828 (3) | 97.1\xa0% |" in text
    (snippet,) = re.findall(r"```python\n(from transformers import Auto.*?)```", text, re.S)
    assert 'subfolder="exits/2-layers"' in snippet
    local = snippet.replace("me/x", str(run)).replace(f'from_pretrained("{run}")', f'from_pretrained("{run}/student")')
    loaded: dict = {}
    exec(local, loaded)  # the snippet is our own
    assert loaded["model"].config.num_hidden_layers == tiny.classifier(2).config.num_hidden_layers


def test_a_new_repository_is_as_private_as_was_said(hub, api, run, tmp_path):
    """Prevents a private model that anybody can read."""
    push(run, "me/x", private=True, api=api)
    assert hub.repos["me/x"].private
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint=hub.url, token=False).hf_hub_download("me/x", "config.json", cache_dir=tmp_path / "a")
    mine = api.hf_hub_download("me/x", "config.json", cache_dir=tmp_path / "b")
    assert Path(mine).read_bytes() == (run / "student" / "config.json").read_bytes()


def test_a_public_repository_is_not_filled_when_a_private_one_is_wanted(hub, api, run):
    """Prevents --private from being ignored where the repository exists."""
    hub.create("me/x")
    with pytest.raises(UserError, match="expected me/x to be private / got a public repository"):
        push(run, "me/x", private=True, api=api)
    assert hub.repos["me/x"].files.keys() == {".gitattributes"}


def test_an_existing_repository_is_announced_and_keeps_its_history(hub, api, run):
    """Prevents files replaced without a word, and files of the author's that disappear."""
    hub.create("me/x", private=True).commit({"config.json": b"{}", "notes.md": b"mine"})
    planned = plan_upload(run, "x", api=api)  # the account's own namespace
    assert f"→ {hub.url}/me/x (exists, private)" in str(planned)
    assert "It replaces: config.json.\n" in str(planned)
    assert "left as they are: .gitattributes, notes.md." in str(planned)
    assert re.search(r"^ +\d+\.\d\skB  model.safetensors$", str(planned), re.M)
    push(run, "x", api=api)
    repo = hub.repos["me/x"]
    assert repo.files.keys() == UPLOADED | {".gitattributes", "notes.md"}
    assert len(repo.commits) == 3
    assert repo.private


def test_code_of_ones_own_is_announced(hub, api, run):
    """Prevents an upload whose author thinks that others can repeat it without the code."""
    assert "code of your own" not in str(plan_upload(run, "x", api=api))
    results = json.loads((run / "results.json").read_text())
    results["recipe"]["objective"]["hidden_l1"] = {"weight": 1.0}
    results["own_code"] = [{"name": "my_terms.py", "sha256": "ab", "terms": {"hidden_l1": {}, "unused": {}}}]
    (run / "results.json").write_text(json.dumps(results))
    announced = "Trained with code of your own, which is not uploaded: my_terms.py, sha256 ab: hidden_l1."
    assert announced in str(plan_upload(run, "x", api=api))


def test_pushing_again_changes_nothing(hub, api, run):
    """Prevents an upload that cannot be repeated after a failure."""
    first = push(run, "me/x", api=api)
    assert push(run, "me/x", api=api) == first
    assert len(hub.repos["me/x"].commits) == 2


def test_what_stops_an_upload_is_said_before_and_after(hub, api, run):
    """Prevents tracebacks, and a user who does not know whether hours of training are lost."""
    hub.create("you/theirs")
    closed = HfApi(endpoint="http://127.0.0.1:9", token=TOKEN)
    cases = [
        (HfApi(endpoint=hub.url), "me/x", r"got no token / .*hf auth login"),
        (HfApi(endpoint=hub.url, token="hf_old"), "me/x", r"got HTTP 401: .*token was rejected"),
        (api, "you/x", r'got HTTP 403: .*namespace "you".*a namespace that is yours: you is not'),
        (api, "you/theirs", r"got HTTP 403: .*write access to you/theirs.*token that may write"),
        (closed, "me/x", r"got ConnectError: .*check the network"),
    ]
    for one, repo_id, message in cases:
        with pytest.raises(UserError, match=message) as failed:
            push(run, repo_id, api=one)
        assert f"the run in {run} is whole" in str(failed.value)
        assert str(failed.value).endswith(f"then: distil-nlp push-to-hub {run} --repo-id {repo_id}")
    with pytest.raises(UserError, match=r"got 'me/x/y': Repo id must be in the form .*such as me/my-distilbert"):
        push(run, "me/x/y", api=api)
    assert hub.repos.keys() == {"you/theirs"}


@pytest.mark.parametrize(("call", "status"), [("commit", 500), ("lfs_upload", 400), ("validate", 400), ("commit", 404)])
def test_an_upload_that_breaks_off_can_be_finished(hub, api, run, call, status):
    """Prevents a half-done upload that spoils the run or the repository."""
    hub.fail[call] = status
    with pytest.raises(UserError, match=rf"got HTTP {status}: .*{call} was made to fail.*--private$"):
        push(run, "me/x", private=True, api=api)
    assert hub.repos["me/x"].files.keys() == {".gitattributes"}
    hub.fail.clear()
    push(run, "me/x", private=True, api=api)
    assert hub.repos["me/x"].files.keys() == UPLOADED | {".gitattributes"}


@pytest.mark.parametrize("call", ["preupload", "lfs_batch", "lfs_upload", "commit"])
@pytest.mark.parametrize("trouble", [[503], [429], [0], [500, 0], [-2]], ids=str)
def test_an_upload_outlives_a_stumble(hub, api, run, monkeypatch, call, trouble):
    """Prevents hours of training that end in "try again" for one overloaded moment, or wait for ever for an answer."""
    monkeypatch.setattr("distil_nlp.hub.client.PATIENCE", 0.5)
    hub.flaky[call] = list(trouble)
    push(run, "me/x", api=api)
    assert not hub.flaky[call]
    assert hub.repos["me/x"].files.keys() == UPLOADED | {".gitattributes"}


def test_a_hub_that_says_nothing_is_not_waited_for(hub, api, run, monkeypatch):
    """Prevents a finished run that hangs for ever at its upload: the client knows no limit of its own."""
    monkeypatch.setattr("distil_nlp.hub.client.PATIENCE", 0.3)
    before = get_session().timeout
    hub.flaky["whoami"] = [-1.5]
    with pytest.raises(UserError, match=r"got ReadTimeout.*check the network, then: distil-nlp push-to-hub"):
        push(run, "me/x", api=api)
    assert get_session().timeout == before


def test_a_missing_token_is_found_before_training(hub, api):
    """Prevents hours of training that end without the upload they were meant for."""
    with pytest.raises(UserError, match=r"got no token / the run would end without an upload / .*hub.push=false"):
        check_repository("me/x", api=HfApi(endpoint=hub.url))
    check_repository("me/x", private=True, api=api)
    assert not hub.repos


def test_a_teacher_on_the_hub_tells_its_licence(hub, monkeypatch, tmp_path):
    """Prevents a licence that is not the teacher's, another revision's, or a link to a file that is not there."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", tmp_path)
    teacher = hub.create("you/teacher")
    old = teacher.commit({"README.md": b"---\nlicense: other\nlicense_link: LICENSE\n---\n"})
    teacher.commit({"README.md": b"---\nlicense: mit\nlanguage: de\nbase_model: you/grandteacher\n---\n"})
    assert teacher_metadata("you/teacher") == {"license": "mit", "language": "de", "base_model": "you/teacher"}
    link = f"https://huggingface.co/you/teacher/blob/{old}/LICENSE"
    assert teacher_metadata("you/teacher", old) == {
        "license": "other",
        "license_link": link,
        "base_model": "you/teacher",
    }


def test_offline_mode_is_named(hub, api, run, monkeypatch):
    """Prevents a search for a broken network where a variable forbids it."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"got offline mode .*unset HF_HUB_OFFLINE"):
        push(run, "me/x", api=api)


@pytest.mark.parametrize("missing", ["results.json", "student/config.json", "student/model.safetensors"])
def test_only_finished_runs_go_up(hub, api, run, missing):
    """Prevents an upload of half a run, or of a folder that is none."""
    (run / missing).unlink()
    with pytest.raises(UserError, match=f"expected a finished run in {run} / got no {missing}"):
        push(run, "me/x", api=api)
    with pytest.raises(UserError, match="got no such folder"):
        push(run / "nowhere", "me/x", api=api)
    assert not hub.repos


def test_a_broken_card_is_named(hub, api, run):
    """Prevents a repository that is created for a card the Hub will refuse."""
    (run / "student" / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(UserError, match=r"valid YAML in .*student/README.md"):
        push(run, "me/x", api=api)
    assert not hub.repos


class Terminal(io.StringIO):
    """Somebody who types an answer."""

    def isatty(self):
        return True


@pytest.mark.parametrize(("answer", "goes_up"), [("y\n", True), ("\n", False), ("", False)])
def test_nothing_goes_up_without_a_yes(hub, run, monkeypatch, capsys, answer, goes_up):
    """Prevents an upload that the user only wanted to look at."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert cli.main(["push-to-hub", str(run), "--repo-id", "me/x"]) == 0
    printed = capsys.readouterr().out
    assert f"{run} → {hub.url}/me/x (new, public" in printed
    assert all(name in printed for name in UPLOADED)
    assert "good:    Distillation paid" in printed[: printed.index("Upload? [y/N]")]
    assert ("me/x" in hub.repos) == goes_up
    assert ("nothing was uploaded" in printed) != goes_up


def test_who_uploads_a_student_that_guesses_is_told_before(hub, run, monkeypatch, capsys):
    """Prevents an upload by hand of a student of no use, by somebody who does not know."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    results = json.loads((run / "results.json").read_text())
    results["student"]["metrics"]["f1"] = results["seeds"]["f1"]["median"] = 0.5
    (run / "results.json").write_text(json.dumps(results))
    assert cli.main(["push-to-hub", str(run), "--repo-id", "me/x"]) == 0
    printed = capsys.readouterr().out
    assert "stop:    Do not use this student" in printed[: printed.index("Upload? [y/N]")]


def test_without_a_terminal_yes_must_be_said(hub, run, monkeypatch, capsys):
    """Prevents a job that waits for ever for an answer, or takes none for yes."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert cli.push_to_hub([str(run), "--repo-id", "me/x"]) == 2
    assert "--yes: expected where nobody can answer / got no terminal" in one_line(capsys.readouterr().err)
    assert not hub.repos
