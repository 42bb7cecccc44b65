"""The folder of a demo: what is in it, what it says, and what is refused."""

import base64
import hashlib
import io
import json
import re
import subprocess
import tarfile
from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distil_nlp.cli import main
from distil_nlp.demo import build, library, modes, write_demo
from distil_nlp.demo.library import NpmPackage, extract_files, fetch_library
from distil_nlp.errors import UserError
from distil_nlp.tasks import KINDS
from tests.demo.folders import exported_run, stand_in
from tests.helpers.messages import one_line

FILES = {
    "index.html", "demo.css", "demo.js", "models.js", "model/config.json", "model/tokenizer.json",
    "model/tokenizer_config.json", "model/onnx/model_quantized.onnx", "vendor/LICENSES.txt", "vendor/transformers.js",
    "vendor/onnxruntime.js", "vendor/onnxruntime-wasm.js", "vendor/onnxruntime.wasm",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return exported_run(tmp_path / "runs" / "glue-mrpc-42")


def written(run, folder, **options):
    """The page of a demo, as text."""
    return write_demo(run, folder, fetch=stand_in, **options).read_text(encoding="utf-8")


def settings_of(page):
    return json.loads(re.search(r'id="settings">(.*?)</script>', page)[1])


class Addresses(HTMLParser):
    """Collects what a page loads or links to."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href")]


def test_the_folder_is_whole(run, tmp_path):
    """Prevents a page that lacks a file, names one by an absolute path, or one of another server."""
    out = tmp_path / "site"
    page = written(run, out)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == FILES
    assert (out / "model" / "onnx" / "model_quantized.onnx").read_bytes() == b"int8"
    parser = Addresses()
    parser.feed(page)
    imported = json.loads(re.search(r'type="importmap">(.*?)</script>', page)[1])["imports"].values()
    local = [address for address in [*parser.found, *imported] if not address.startswith("data:")]
    assert len(local) >= 6
    assert all((out / address).is_file() for address in local)


def test_the_page_says_what_the_model_is_and_how_good(run, tmp_path):
    """Prevents figures of another model, and a sentence that names another teacher."""
    page = written(run, tmp_path / "site")
    assert "A model of 17.4\u00a0M parameters that classifies pairs of texts" in page
    assert "distilled from bert-base-uncased on GLUE MRPC." in page
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td><td>(.*?)</td>', page)
    assert rows == [
        ("F1", "0.842", "0.835", "99.2\u00a0% kept"),
        ("Size, MB", "90.8", "18.1", "5.0× smaller"),
        ("ms for one text", "20.0", "4.10", "4.9× as fast"),
    ]
    assert settings_of(page)["dtype"] == "q8"


def test_an_int8_copy_below_its_gate_is_not_in_the_page(tmp_path):
    """Prevents a demo of a model that is not published."""
    run, out = exported_run(tmp_path / "run", kept=0.95), tmp_path / "site"
    page = written(run, out)
    assert settings_of(page)["dtype"] == "fp32"
    assert [path.name for path in (out / "model" / "onnx").iterdir()] == ["model.onnx"]
    assert "is in float32" in page


@pytest.mark.parametrize(
    ("shows", "asked", "are_there"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_rows_of_the_data_are_there_only_if_they_may_be(tmp_path, shows, asked, are_there):
    """Prevents texts of the data in a page where the recipe, or whoever makes the page, leaves them out."""
    run = exported_run(tmp_path / "run")
    results = json.loads((run / "results.json").read_text())
    results["recipe"]["evaluation"]["show_rows"] = shows
    (run / "results.json").write_text(json.dumps(results))
    rows = {"text": ["a secret </script><b>", "another"], "text_pair": ["first", "second"]}
    pq.write_table(pa.table(rows), run / "predictions.parquet")
    page = written(run, tmp_path / "site", has_rows=asked)
    assert ("a secret" in page) == are_there
    assert "</script><b>" not in page
    wanted = [list(row) for row in zip(*rows.values(), strict=True)]
    assert (settings_of(page)["examples"] == wanted) == are_there


def test_a_run_without_an_export_is_told_how(run, tmp_path, capsys):
    """Prevents a page without a model, or with one that nobody scored."""
    (run / "student" / "onnx" / "model.onnx").write_bytes(b"changed")
    (run / "student" / "onnx" / "model_quantized.onnx").unlink()
    assert main(["demo", str(run), "--out", str(tmp_path / "site")]) == 2
    said = one_line(capsys.readouterr().err)
    assert "expected an exported student" in said
    assert f"distil-nlp export {run}" in said
    assert not (tmp_path / "site").exists()


def test_what_is_no_demo_is_not_replaced(run, tmp_path):
    """Prevents a folder of somebody's own that the command deletes."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"mine: expected a new folder, an empty one or an earlier demo / .*--out"):
        write_demo(run, tmp_path / "mine", fetch=stand_in)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "mine"
    for _ in range(2):
        write_demo(run, tmp_path / "site", fetch=stand_in)


def test_a_broken_download_leaves_the_earlier_demo(run, tmp_path):
    """Prevents a page that worked and is gone because the network was."""
    before = written(run, tmp_path / "site")

    def fail(folder):
        raise UserError("npm", "a network", "none")

    with pytest.raises(UserError):
        write_demo(run, tmp_path / "site", fetch=fail)
    assert (tmp_path / "site" / "index.html").read_text(encoding="utf-8") == before
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "site"}


def test_the_command_writes_into_the_run(run, monkeypatch, capsys):
    """Prevents a last line that is not the page's path."""
    monkeypatch.setattr(build.write_demo, "__kwdefaults__", build.write_demo.__kwdefaults__ | {"fetch": stand_in})
    assert main(["demo", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "demo" / "index.html")


def test_every_kind_of_task_has_its_page():
    """Prevents a kind without a page, examples of other fields, and a mode that the scripts do not have."""
    scripts = (build.resources.files("distil_nlp.demo") / "templates" / "models.js").read_text(encoding="utf-8")
    for kind in KINDS.values():
        for is_pair in (False, True):
            mode = modes.mode_of(kind, is_pair and kind.joins_pairs)
            assert mode is not None, kind
            assert re.search(rf"^  async {mode.name}\(", scripts, re.M), mode.name
            assert {len(example) for example in mode.examples} == {len(mode.fields)}
            assert mode.needs_mask == all("MASK" in example[0] for example in mode.examples)


def test_npm_that_is_missing_or_offline_is_named(tmp_path, monkeypatch):
    """Prevents a traceback for somebody without Node.js, or without a network."""
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    with pytest.raises(
        UserError, match=r"npm: expected npm to be installed / got no such program / .*install Node\.js"
    ):
        fetch_library(tmp_path / "vendor")
    monkeypatch.setattr(library.shutil, "which", lambda name: "/usr/bin/npm")
    offline = subprocess.CompletedProcess([], 1, "", "npm error code EAI_AGAIN\nnpm error no address\n")
    monkeypatch.setattr(library.subprocess, "run", lambda *args, **kwargs: offline)
    with pytest.raises(UserError, match=r"@huggingface/transformers@\d.*got no address / .*check the network"):
        fetch_library(tmp_path / "vendor")


def test_a_package_is_taken_only_with_its_checksum(tmp_path):
    """Prevents another library than the one that was tested."""
    tarball = tmp_path / "x.tgz"
    with tarfile.open(tarball, "w:gz") as archive:
        member = tarfile.TarInfo("package/dist/x.mjs")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    right = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    extract_files(tarball, NpmPackage("x", "1", right, {"dist/x.mjs": "x.js"}), tmp_path)
    assert (tmp_path / "x.js").read_bytes() == b"hi"
    with pytest.raises(UserError, match="another package than the one that was tested"):
        extract_files(tarball, NpmPackage("x", "1", right[::-1], {"dist/x.mjs": "y.js"}), tmp_path)
    assert not (tmp_path / "y.js").exists()
