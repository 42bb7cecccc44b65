"""Exported students in real clients: onnxruntime without torch, transformers.js in Node and in Chromium."""

import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from transformers import pipeline

from distil_nlp.cli import main
from tests.export.runs_of_kinds import run_of
from tests.helpers import ROOT, tiny

pytestmark = pytest.mark.integration

CLIENTS = Path(__file__).parent / "clients"
INSTALLED = ROOT / "build" / "clients"
TEXTS = [*tiny.SENTENCES, "the cat", "fish . fish . fish"]


def needed(*programs):
    """Skip where a program is not installed; CI must not."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"expected {', '.join(programs)} / got no {', '.join(missing)} / CI must not skip real clients")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a classifier, exported."""
    run = run_of("classification", tmp_path_factory.mktemp("clients") / "place")
    assert main(["export", str(run), "export.latency=off"]) == 0
    return run


@pytest.fixture(scope="module")
def wanted(run):
    """The labels that the student itself gives."""
    return [one["label"] for one in pipeline("text-classification", str(run / "student"))(TEXTS)]


@pytest.fixture(scope="module")
def transformers_js():
    """The folder with transformers.js, from npm; its scripts, which would fetch a CUDA library, are not run."""
    needed("node", "npm")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    shutil.copy(CLIENTS / "package.json", INSTALLED)
    library = INSTALLED / "node_modules" / "@huggingface" / "transformers" / "package.json"
    version = json.loads((CLIENTS / "package.json").read_text())["dependencies"]["@huggingface/transformers"]
    if not library.is_file() or json.loads(library.read_text())["version"] != version:
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=INSTALLED, check=True, capture_output=True, timeout=400)
    return INSTALLED


WITHOUT_TORCH = """
import json, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "distil_nlp", "transformers"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np, onnxruntime
from tokenizers import Tokenizer

student, texts = sys.argv[1], json.loads(sys.argv[2])
tokenizer = Tokenizer.from_file(f"{student}/tokenizer.json")
names = json.load(open(f"{student}/config.json"))["id2label"]
found = {}
for file in ("model", "model_quantized"):
    session, found[file] = onnxruntime.InferenceSession(f"{student}/onnx/{file}.onnx"), []
    for text in texts:
        row = tokenizer.encode(text)
        columns = {"input_ids": row.ids, "attention_mask": row.attention_mask, "token_type_ids": row.type_ids}
        feed = {one.name: np.array([columns[one.name]]) for one in session.get_inputs()}
        found[file].append(names[str(session.run(["logits"], feed)[0].argmax())])
assert "torch" not in sys.modules
print(json.dumps(found))
"""


def test_onnxruntime_without_torch_gives_the_same_labels(run, wanted):
    """Prevents a graph that needs the library that it should do without."""
    command = [sys.executable, "-c", WITHOUT_TORCH, str(run / "student"), json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"model": wanted, "model_quantized": wanted}


def test_transformers_js_in_node_gives_the_same_labels(run, wanted, transformers_js):
    """Prevents a layout, a name or an operator that transformers.js does not know."""
    script = shutil.copy(CLIENTS / "classify.mjs", transformers_js)
    command = ["node", script, str(run), "student", json.dumps(TEXTS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=transformers_js, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert {dtype: [one["label"] for one in rows] for dtype, rows in answers.items()} == {"fp32": wanted, "q8": wanted}


@pytest.fixture(scope="module")
def site(run, transformers_js, tmp_path_factory):
    """A static site on localhost with the student, transformers.js and onnxruntime's WebAssembly."""
    folder, modules = tmp_path_factory.mktemp("site"), transformers_js / "node_modules"
    (folder / "models").mkdir()
    (folder / "models" / "student").symlink_to(run / "student")
    (folder / "transformers").symlink_to(modules / "@huggingface" / "transformers" / "dist")
    (folder / "onnxruntime").symlink_to(modules / "onnxruntime-web" / "dist")
    shutil.copy(CLIENTS / "classify.html", folder)
    handler = partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *args):
        pass


def test_transformers_js_in_chromium_gives_the_same_labels(site, wanted, tmp_path):
    """Prevents a graph that runs on servers alone."""
    needed("chromium", "chromedriver")
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
                     "disable-background-networking", f"user-data-dir={tmp_path}"):  # fmt: skip
        options.add_argument(f"--{argument}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        browser.get(f"{site}/classify.html?texts={quote(json.dumps(TEXTS))}")
        state = WebDriverWait(browser, timeout=240).until(
            lambda it: (found := it.execute_script("return document.body.dataset.state")) != "loading" and found
        )
        text = browser.execute_script("return document.body.textContent")
        fetched = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    finally:
        browser.quit()
    assert state == "done", text
    assert [one["label"] for one in json.loads(text)] == wanted
    assert any(name.endswith("model_quantized.onnx") for name in fetched)
    assert all(name.startswith((site, "blob:", "data:")) for name in fetched)
