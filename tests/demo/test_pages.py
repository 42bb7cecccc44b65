"""Demos in headless Chromium: typed into at phone and desktop width, with Python's own answers, and no other server."""

import json
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForTokenClassification, AutoTokenizer, pipeline

from distil_nlp.cli import main
from distil_nlp.demo import write_demo
from tests.export.runs_of_kinds import run_of
from tests.helpers import tiny

pytestmark = pytest.mark.integration

WIDTHS = {"phone": 390, "desktop": 1280}
TEXTS = [*tiny.SENTENCES[:3], "the cat", "fish . fish . fish"]
SHOWN = "return [...document.querySelectorAll('.bars li')].map(one => ({...one.dataset}))"


@pytest.fixture(scope="module", autouse=True)
def _programs():
    """Skip where a program is not installed; CI must not."""
    missing = [name for name in ("npm", "chromium", "chromedriver") if shutil.which(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"expected npm and Chromium / got no {', '.join(missing)} / CI must not skip the pages")
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """A function that gives a kind's run, exported in float32 and with a demo, and the demo's folder."""
    made = {}

    def demo(kind):
        if kind not in made:
            place = tmp_path_factory.mktemp(kind)
            run = run_of(kind, place / "place")
            assert main(["export", str(run), "export.latency=off", "export.int8=off"]) == 0
            made[kind] = run, write_demo(run, place / "deep" / "site", has_rows=False).parent
        return made[kind]

    return demo


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def browser(tmp_path):
    """A function that opens a demo at a width, in a folder of a site, and waits until it is ready or has failed."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    opened, servers = [], []

    def open_page(folder, width=1280, state="ready", script=""):
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder.parent)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run",
                         "disable-background-networking", f"user-data-dir={tmp_path}"):  # fmt: skip
            options.add_argument(f"--{argument}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
        page = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        opened.append(page)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        page.get(f"http://127.0.0.1:{server.server_address[1]}/{folder.name}/")
        page.wait = WebDriverWait(page, timeout=240)
        page.wait.until(lambda it: it.execute_script("return document.body.dataset.state") != "loading")
        assert page.execute_script("return document.body.dataset.state") == state, _alert(page)
        if state == "ready":
            page.wait.until(_is_idle)
        return page

    yield open_page
    for page in opened:
        page.quit()
    for server in servers:
        server.shutdown()
        server.server_close()


def _is_idle(page):
    return page.execute_script("return !document.querySelector('[type=submit]').disabled")


def _alert(page):
    return page.execute_script("return document.getElementById('alert').textContent")


def type_in(page, *texts):
    """Type texts with the keyboard alone: Tab from field to field, then Ctrl+Enter; return the rows that are shown."""
    from selenium.webdriver.common.keys import Keys

    before = page.execute_script("return document.getElementById('result').dataset.number ?? '0'")
    page.find_element("css selector", "textarea").click()
    for number, text in enumerate(texts):
        if number:
            page.switch_to.active_element.send_keys(Keys.TAB)
        page.switch_to.active_element.send_keys(Keys.CONTROL, "a")
        page.switch_to.active_element.send_keys(Keys.NULL, text)
    page.switch_to.active_element.send_keys(Keys.CONTROL, Keys.ENTER)
    page.wait.until(
        lambda it: it.execute_script("return document.getElementById('result').dataset.number ?? '0'") != before
    )
    page.wait.until(_is_idle)
    return page.execute_script(SHOWN)


def requested(page, origin):
    """Addresses of all requests of the page, by the browser's own log, which has its new-tab page's too."""
    entries = (json.loads(entry["message"])["message"] for entry in page.get_log("performance"))
    sent = [entry for entry in entries if entry["method"] == "Network.requestWillBeSent"]
    own = [entry["params"] for entry in sent if entry["params"]["documentURL"].startswith(origin)]
    return {entry["request"]["url"] for entry in own}


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_a_page_gives_the_labels_that_python_gives(demos, browser, width):
    """Prevents other labels than the student's, a page wider than the phone, and a request to any other server."""
    run, folder = demos("classification")
    page = browser(folder, width)
    found = [type_in(page, text) for text in TEXTS]
    wanted = pipeline("text-classification", str(run / "student"))(TEXTS)
    assert [rows[0]["name"] for rows in found] == [one["label"] for one in wanted]
    assert [float(rows[0]["value"]) for rows in found] == pytest.approx([one["score"] for one in wanted], abs=1e-4)
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    assert "ms in this browser" in page.execute_script("return document.getElementById('time').textContent")
    origin = page.current_url.rsplit("/", 2)[0]
    urls = requested(page, origin)
    assert any(url.endswith("model.onnx") for url in urls)
    assert all(url.startswith((f"{origin}/", "blob:", "data:")) for url in urls), urls


def test_an_empty_field_and_a_long_text_are_told(demos, browser):
    """Prevents a page that does nothing, and an answer to the beginning of a text that nobody said was cut."""
    page = browser(demos("classification")[1])
    field = page.find_element("css selector", "textarea")
    field.clear()
    page.find_element("css selector", "[type=submit]").click()
    assert _alert(page) == "Please write something here first."
    assert page.switch_to.active_element == field
    field.send_keys("cat " * 600)
    page.find_element("css selector", "[type=submit]").click()
    page.wait.until(lambda it: "too long: 602 tokens" in _alert(it))


def test_a_browser_without_webassembly_is_told(demos, browser):
    """Prevents a page that loads for ever where WebAssembly is off."""
    page = browser(demos("classification")[1], state="failed", script="delete globalThis.WebAssembly")
    assert "cannot run WebAssembly" in _alert(page)


def test_a_missing_file_is_told(demos, browser, tmp_path):
    """Prevents a page that loads for ever from a server that lacks a file."""
    folder = shutil.copytree(demos("classification")[1], tmp_path / "broken" / "site")
    (folder / "vendor" / "onnxruntime.wasm").unlink()
    assert "could not be loaded" in _alert(browser(folder, state="failed"))


def test_a_page_of_labels_has_those_above_the_threshold(demos, browser):
    """Prevents labels at another threshold than the student's own."""
    run, folder = demos("multilabel")
    page, threshold = browser(folder), json.loads((run / "student" / "config.json").read_text())["threshold"]
    model = pipeline("text-classification", str(run / "student"), top_k=None)
    for text in TEXTS:
        wanted = {one["label"]: one["score"] for one in model([text])[0]}
        found = {row["name"]: row for row in type_in(page, text)}
        assert {name: float(row["value"]) for name, row in found.items()} == pytest.approx(wanted, abs=1e-4)
        assert {name for name, row in found.items() if "chosen" in row} == {
            name for name, score in wanted.items() if score >= threshold
        }


def test_a_page_of_tags_tags_each_word_as_python_does(demos, browser):
    """Prevents tags of other words, which tokens of their own vocabulary would have."""
    run, folder = demos("tokens")
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    model = AutoModelForTokenClassification.from_pretrained(run / "student").eval()
    page = browser(folder)
    for text in TEXTS:
        words = text.split()
        encoded = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        first = [encoded.word_ids().index(number) for number in range(len(words))]
        with torch.no_grad():
            tags = [model.config.id2label[int(model(**encoded).logits[0, at].argmax())] for at in first]
        type_in(page, text)
        marked = page.execute_script(
            "return [...document.querySelectorAll('mark')].map(one => [one.firstChild.data, one.lastChild.textContent])"
        )
        assert marked == entities(words, tags)


def entities(words, tags):
    """Entities with their types: I- goes on after B- or I- of its type, else one begins."""
    found, before = [], None
    for word, tag in zip(words, tags, strict=True):
        kind = tag.removeprefix("B-").removeprefix("I-")
        if tag.startswith("I-") and before == kind:
            found[-1][0] += f" {word}"
        elif tag != "O":
            found.append([word, kind])
        before = None if tag == "O" else kind
    return found


def test_a_page_of_words_fills_the_gap(demos, browser):
    """Prevents words at another place than the gap."""
    run, folder = demos("mlm")
    page, model = browser(folder), pipeline("fill-mask", str(run / "student"), top_k=3)
    for text in ("the MASK sees the dog .", "a big red MASK walked"):
        found = type_in(page, text)[:3]
        wanted = model(text.replace("MASK", model.tokenizer.mask_token))
        assert [row["name"] for row in found] == [one["token_str"] for one in wanted]
        assert [float(row["value"]) for row in found] == pytest.approx([one["score"] for one in wanted], abs=1e-4)


def test_a_page_of_vectors_has_pythons_cosines(demos, browser):
    """Prevents cosines of vectors that are pooled otherwise."""
    from sentence_transformers import SentenceTransformer

    run, folder = demos("embedding")
    model = SentenceTransformer(str(run / "student"), device="cpu")
    vectors = model.encode(TEXTS, normalize_embeddings=True)
    wanted = dict(zip(TEXTS[1:], (vectors[1:] @ vectors[0]).tolist(), strict=True))
    found = type_in(browser(folder), TEXTS[0], "\n".join(TEXTS[1:]))
    assert {row["name"]: float(row["value"]) for row in found} == pytest.approx(wanted, abs=1e-4)


def test_a_page_of_documents_orders_them_as_python_does(demos, browser):
    """Prevents scores of single texts where pairs were meant."""
    run, folder = demos("ranking")
    query, documents = "cat", ["see cat", "see dog by the", "see bird by the by the"]
    model = pipeline("text-classification", str(run / "student"), function_to_apply="none")
    scores = {one: model({"text": query, "text_pair": one})["score"] for one in documents}
    found = type_in(browser(folder), query, "\n".join(documents))
    assert [row["name"] for row in found] == sorted(documents, key=lambda one: -scores[one])
    assert {row["name"]: float(row["value"]) for row in found} == pytest.approx(scores, abs=1e-4)


def test_a_page_of_answers_finds_pythons(demos, browser):
    """Prevents an answer whose place is counted in other tokens."""
    run, folder = demos("qa")
    tokenizer = AutoTokenizer.from_pretrained(run / "student")
    model = AutoModelForQuestionAnswering.from_pretrained(run / "student").eval()
    page = browser(folder)
    for question, context in (
        ("red cat ?", "the dog sees a big red bird , and walked"),
        ("old ?", "the cat , the fish ."),
    ):
        encoded = tokenizer(question, context, return_offsets_mapping=True, return_tensors="pt")
        offsets, inside = encoded.pop("offset_mapping")[0].tolist(), [part == 1 for part in encoded.sequence_ids(0)]
        with torch.no_grad():
            output = model(**encoded)
        start, end = output.start_logits[0].tolist(), output.end_logits[0].tolist()
        places = [(i, j) for i in range(len(start)) for j in range(i, len(end)) if inside[i] and inside[j]]
        first, last = max(places, key=lambda place: start[place[0]] + end[place[1]])
        found = type_in(page, question, context)
        assert found[0]["name"] == context[offsets[first][0] : offsets[last][1]]
