"""A demo as a static Space, on a stand-in for the Hub."""

import io
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import SpaceCard

from distil_nlp import cli
from distil_nlp.demo.build import write_demo
from tests.demo.folders import exported_run, stand_in
from tests.demo.test_folder import FILES
from tests.helpers.hub import reachable_hub
from tests.helpers.messages import one_line

TOKEN = "hf_ofme"


@pytest.fixture
def hub(monkeypatch):
    """A running Hub with a token of mine, and a library that needs no npm."""
    monkeypatch.setattr(write_demo, "__kwdefaults__", write_demo.__kwdefaults__ | {"fetch": stand_in})
    with reachable_hub(monkeypatch, me=TOKEN) as hub:
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture
def run(tmp_path):
    """An exported run that has kept its rows."""
    run = exported_run(tmp_path / "runs" / "glue-mrpc-42")
    pq.write_table(pa.table({"text": ["a secret"], "text_pair": ["first"]}), run / "predictions.parquet")
    return run


def push(run, *more):
    return cli.main(["push-to-hub", str(run), "--repo-id", "me/x", "--demo", "me/x-demo", *more])


def test_a_space_goes_up_beside_its_model(hub, run, capsys):
    """Prevents a Space of another sdk, without a file of the page, in several commits, or with rows of the data."""
    assert push(run, "--yes") == 0
    printed, space = capsys.readouterr().out, hub.repos["spaces/me/x-demo"]
    assert hub.repos.keys() == {"me/x", "spaces/me/x-demo"}
    assert space.files.keys() == FILES | {"README.md", ".gitattributes"}
    assert len(space.commits) == 2  # the Hub's own first one, and ours
    assert f"{hub.url}/spaces/me/x-demo (new, public" in printed
    assert printed.splitlines()[-1] == f"{hub.url}/spaces/me/x-demo/commit/{space.head}"
    card = SpaceCard(space.files["README.md"].decode())
    assert (card.data.sdk, card.data.app_file, card.data.models) == ("static", "index.html", ["me/x"])
    page = space.files["index.html"].decode()
    assert 'href="https://huggingface.co/me/x"' in page
    assert "a secret" not in page
    assert not (run / "demo").exists()


def test_pushing_a_space_again_changes_nothing(hub, run):
    """Prevents an upload that cannot be repeated after a failure."""
    assert push(run, "--yes") == 0
    assert push(run, "--yes") == 0
    assert len(hub.repos["spaces/me/x-demo"].commits) == 2


def test_nothing_goes_up_without_a_yes_for_both(hub, run, monkeypatch, capsys):
    """Prevents a model that is published by somebody who was shown the demo alone, or the other way round."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert push(run) == 2
    printed = capsys.readouterr().out
    assert f"{run} → {hub.url}/me/x (new" in printed
    assert f"{run} → {hub.url}/spaces/me/x-demo (new" in printed
    assert not hub.repos


def test_a_space_that_breaks_off_is_told_how_to_finish(hub, run, capsys):
    """Prevents a command for the rest that forgets the demo."""
    hub.create("spaces/me/x-demo")
    hub.create("me/x")
    hub.fail["commit"] = 500
    assert push(run, "--yes") == 2
    hub.fail.clear()
    assert push(run, "--yes") == 0
    hub.repos["spaces/me/x-demo"].private = False
    assert push(run, "--yes", "--private") == 2
    hub.repos["me/x"].private = True
    capsys.readouterr()
    assert push(run, "--yes", "--private") == 2
    said = one_line(capsys.readouterr().err)
    assert "hub.private: expected me/x-demo to be private" in said


def test_a_run_without_an_export_has_no_space(hub, run, capsys):
    """Prevents a model that goes up before its demo is known to be impossible."""
    results = json.loads((run / "results.json").read_text())
    del results["export"]
    (run / "results.json").write_text(json.dumps(results))
    assert push(run, "--yes") == 2
    assert "expected an exported student" in one_line(capsys.readouterr().err)
    assert not hub.repos
