"""What a report says and shows, and that nothing that is missing, long or hostile breaks it."""

import base64
import copy
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure
from scipy.stats import t as student_t

from distil_nlp.cli import main
from distil_nlp.errors import UserError
from distil_nlp.reporting.breakdown import changes_sentences, classes_table, lengths_table, row_tables
from distil_nlp.reporting.formatting import GAP, decimal, duration
from distil_nlp.reporting.latency import latency_sentences, latency_table
from distil_nlp.reporting.plots.curves import gradients_figure, terms_figure
from distil_nlp.reporting.plots.matrices import cka_figure, confusion_figures
from distil_nlp.reporting.plots.probe import probe_figure
from distil_nlp.reporting.plots.scores import latency_figure, scores_figure
from distil_nlp.reporting.plots.style import SERIES, style
from distil_nlp.reporting.report import write_report
from distil_nlp.reporting.report.advice import advice
from distil_nlp.reporting.report.pages import run_page
from distil_nlp.reporting.sentences import distillation_gain, fidelity_sentences, headline, majority_note
from distil_nlp.reporting.summary import summary_table
from distil_nlp.reporting.tables import calibration_table, cost_table, quality_table, training_table
from distil_nlp.reporting.teachers import ensemble_sentence
from distil_nlp.reporting.verdicts import leading_verdict, verdict_lines, verdicts
from distil_nlp.results import RunResults
from distil_nlp.results.predictions import write_predictions
from tests.helpers.showcase import PREDICTIONS, example

NEEDED = {"schema_version", "task", "headline", "teacher", "student"}


def save(folder, **changes):
    """A run's folder that holds the example's results, changed, and rows."""
    folder.mkdir(parents=True)
    write_predictions(folder, PREDICTIONS)
    (folder / "results.json").write_text(json.dumps(example(**changes)), encoding="utf-8")
    return folder


def run_of(tmp_path, **changes):
    return RunResults("mine", tmp_path, example(**changes))


def changed(path, value):
    """The example with the value at `path` (section.key) replaced; one of its top-level keys, for `example`."""
    results = example()
    *parents, last = path.split(".")
    tree = results
    for key in parents:
        tree = tree[key]
    tree[last] = value
    return {parents[0] if parents else last: results[parents[0] if parents else last]}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The example's report: the path of its page, and the page."""
    path = write_report([save(tmp_path_factory.mktemp("runs") / "run")])
    return path, path.read_text(encoding="utf-8")


@pytest.fixture
def undrawn(monkeypatch):
    """Plots are made but not rendered, where the question is which there are."""

    def savefig(self, file, format, **_):
        file.write('<svg viewBox="0 0 1 1"></svg>' if format == "svg" else b"")

    monkeypatch.setattr(Figure, "savefig", savefig)


class Page(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


# One run ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_page_a_text_and_its_plots(report):
    """Prevents a report without its plots, and plots that no report shows."""
    path, html = report
    assert path.parts[-3:] == ("run", "report", "report.html")
    plots = {file.name for file in path.parent.glob("*.png")}
    assert plots == {
        "scores.png",
        "quality_latency.png",
        "confusion_teacher.png",
        "confusion_student.png",
        "cka.png",
        "terms.png",
        "weights.png",
    }
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in path.parent.glob("*.png"))
    markdown = (path.parent / "report.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w.]+)\)", markdown)) == plots
    page = Page(html)
    pictures = [attributes["aria-label"] for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == len(plots)
    assert all(pictures)
    for told in (
        "keeps 99.4",
        "Distillation paid",
        "Distillation adds 7.7 points of F1",
        "labels only",
        "+7.7 (+4.6 to +10.8)",
    ):
        assert told in page.text.replace(GAP, " ")
        assert told in markdown.replace(GAP, " ")


def test_tables_are_tables(report):
    """Prevents cells that a screen reader cannot place."""
    heads = [attributes.get("scope") for tag, attributes in Page(report[1]).tags if tag == "th"]
    assert set(heads) == {"row", "col"}


def test_the_page_is_one_file(report):
    """Prevents a page that needs the network, or its neighbours."""
    html = report[1]
    for _, attributes in Page(html).tags:
        for name in ("src", "href", "xlink:href", "srcset"):
            assert attributes.get(name, "#").startswith("#"), attributes
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_pictures_share_no_ids(report):
    """Prevents one picture that draws with another's markers and clip paths."""
    html = report[1]
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'href="#([^"]+)"', html)) | set(re.findall(r"url\(#([^)]+)\)", html))
    assert used
    assert used <= set(ids)


def test_the_same_results_give_the_same_bytes(report, tmp_path):
    """Prevents reports that differ from time to time, and so cannot be compared."""
    first = report[0].parent
    second = write_report([first.parent], tmp_path / "again").parent
    assert {file.name: file.read_bytes() for file in first.iterdir()} == {
        file.name: file.read_bytes() for file in second.iterdir()
    }


def test_the_style_sheet_has_the_colours_that_are_drawn(report):
    """Prevents a page whose colours drift from those of the PNGs."""
    html = report[1]
    light = html[html.index(":root {") : html.index("@media")]
    assert tuple(re.findall(r"--series-\d: (#\w{6})", light)) == SERIES
    drawing = html[html.index("<main>") :]
    assert not [colour for colour in SERIES if colour in drawing]
    assert "var(--series-0)" in drawing


def test_only_the_pages_own_script_runs(report):
    """Prevents a script in a label or a text from running, and a page whose own is blocked by its policy."""
    html = report[1]
    script = re.search(r"<script>(.*?)</script>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


# What is missing ----------------------------------------------------------------------------------------------


def paths(tree, prefix=()):
    """Every key of a nested dict, as a tuple."""
    for key, value in tree.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from paths(value, (*prefix, key))


@pytest.mark.integration
@pytest.mark.parametrize("lost", ["absent", "null"])
def test_no_key_is_missed(tmp_path, undrawn, lost):
    """Prevents a report that fails after hours of training because one optional figure is not there."""
    every = [path for path in paths(example()) if path not in {(key,) for key in NEEDED}]
    assert len(every) > 100
    for path in every:
        results = example()
        tree = results
        for key in path[:-1]:
            tree = tree[key]
        if lost == "null":
            tree[path[-1]] = None
        else:
            del tree[path[-1]]
        run = RunResults("mine", tmp_path, results)
        words = [headline(run), distillation_gain(run), majority_note(run), *fidelity_sentences(run),
                 *changes_sentences(run), *latency_sentences(run), *(one.text for one in verdicts(run))]  # fmt: skip
        tables = [quality_table(run), cost_table(run), latency_table(run), training_table(run), classes_table(run),
                  lengths_table(run)]  # fmt: skip
        told = [*words, *(cell for table in tables if table for row in table.rows for cell in row)]
        assert all(isinstance(text, str) and "None" not in text for text in told), path
        assert advice(run), path
        with style():
            figures = (
                [*confusion_figures(run), cka_figure(run)]
                if path[0] == "fidelity"
                else [latency_figure(run)] * ("efficiency" in path)
            )
        assert all(figure is None or "None" not in figure.description for figure in figures), path


@pytest.mark.parametrize("key", sorted(set(example()) - NEEDED))
def test_a_plot_whose_figures_are_missing_is_left_out(tmp_path, undrawn, key):
    """Prevents empty plots, and plots that fail."""
    pictures = {picture.name for picture in run_page(run_of(tmp_path, **{key: None})).pictures}
    gone = {"fidelity": {"confusion_teacher", "confusion_student", "cka"}, "training": {"terms", "weights"},
            "efficiency": {"quality_latency"}}.get(key, set())  # fmt: skip
    shown = {"scores", "quality_latency", "confusion_teacher", "confusion_student", "cka", "terms", "weights"}
    assert pictures == shown - gone


def test_the_least_there_can_be(tmp_path):
    """Prevents a report that needs more than results.json promises."""
    folder = tmp_path / "run"
    folder.mkdir()
    least = {"schema_version": 1, "task": "sst2", "headline": "accuracy", "teacher": {}, "student": {}}
    (folder / "results.json").write_text(json.dumps(least))
    path = write_report([folder])
    assert "No scores were recorded." in path.read_text(encoding="utf-8")
    assert not list(path.parent.glob("*.png"))


def test_confusion_of_many_classes_is_left_out(tmp_path, undrawn):
    """Prevents a matrix of figures that nobody can read."""
    for size, is_shown in ((20, True), (21, False)):
        counts = [[int(i == j) for j in range(size)] for i in range(size)]
        changes = changed("fidelity.confusion", {"teacher": counts, "student": counts})
        with style():
            assert len(confusion_figures(run_of(tmp_path, **changes))) == 2 * is_shown


def test_flat_and_broken_curves_are_drawn(tmp_path):
    """Prevents a run whose loss was 0, constant, huge or null at times from ending without a report."""
    for values in ([0.0, 0.0], [0.3, 0.3], [1e30, 1e-30], [None, 0.2, 0.1], [-1.0, 2.0]):
        training = {"history": [{"step": i, "loss": value} for i, value in enumerate(values)]}
        with style():
            assert terms_figure(run_of(tmp_path, training=training)).svg


# Parts of the rows --------------------------------------------------------------------------------------------


def test_rows_that_changed_are_on_the_page_and_nowhere_else(report):
    """Prevents texts of users in files that are uploaded, and a list of rows without those that matter most."""
    path, html = report
    shown = re.findall(r'<th scope="row">(\d+)</th><td data-name="text" class="text">(first text \d+)</td>', html)
    lost, won = shown[:10], shown[10:]
    assert lost == [(str(i), f"first text {i}") for i in range(29, 10, -2)]  # the student's surest mistakes first
    assert won == [(str(i), f"first text {i}") for i in range(28, -1, -4)]
    assert not any("first text" in file.read_text() for file in path.parent.glob("*.md"))
    assert "the student has 18 wrong that the teacher has right" in told(Page(html).text)


def test_long_texts_are_cut_and_texts_stay_text(tmp_path):
    """Prevents a page of one row, and a text that runs as code."""
    texts = [
        HOSTILE,
        *PREDICTIONS["text"][1:],
    ]
    folder = save(tmp_path / "run")
    write_predictions(folder, PREDICTIONS | {"text": texts})
    tables = row_tables(RunResults("mine", folder, example()))
    pairs = [row[2] for table in tables for row in table.rows]
    assert max(map(len, pairs)) <= 240
    page = Page(write_report([folder]).read_text(encoding="utf-8"))
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "alert(1)" in page.text


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and nothing of it"])
def test_without_rows_there_is_a_report(tmp_path, content):
    """Prevents a run without a report because its rows were removed, or are damaged."""
    folder = save(tmp_path / "run")
    (folder / "predictions.parquet").unlink()
    if content is not None:
        (folder / "predictions.parquet").write_bytes(content)
    assert "Rows that changed" in write_report([folder]).read_text(encoding="utf-8")


def test_rows_without_texts_are_known_by_number(tmp_path):
    """Prevents a page that shows texts which the recipe left out, or says that it does."""
    folder = save(tmp_path / "run")
    write_predictions(folder, {name: values for name, values in PREDICTIONS.items() if not name.startswith("text")})
    html = write_report([folder]).read_text(encoding="utf-8")
    assert html.count('<th scope="row">29</th><td data-name="label">equivalent</td>') == 1
    assert "Who gets this page" not in html


def test_numbers_are_farther_off_or_closer(tmp_path):
    """Prevents regression rows under the words of classes."""
    columns = {"split": ["test"] * 3, "row": [0, 1, 2], "text": ["a", "b", "c"], "label": [1.0, 2.0, 3.0],
               "teacher": [1.5, 2.0, 3.0], "student": [1.0, 2.1, 4.5], "teacher_error": [0.5, 0.0, 0.0],
               "student_error": [0.0, 0.1, 1.5]}  # fmt: skip
    write_predictions(tmp_path, columns)
    lost, won = row_tables(run_of(tmp_path, task="stsb"))
    assert (lost.caption, [row[0] for row in lost.rows]) == ("The student is farther off than the teacher", ["2", "1"])
    assert won.rows == (("0", "a", "1.000", "1.50", "1.000"),)


def test_many_classes_are_those_that_changed_most(tmp_path):
    """Prevents a table of 150 classes."""
    same = {"precision": 0.5, "recall": 0.5, "f1": 0.5}
    classes = [
        {"name": f"c{i}", "rows": 9, "teacher": same, "student": same | {"f1": 0.5 - i / 100}} for i in range(40)
    ]
    table = classes_table(run_of(tmp_path, breakdown={"classes": classes}))
    assert [row[0] for row in table.rows] == [f"c{i}" for i in range(20, 40)]
    assert "20 of 40 classes" in table.note


def test_no_half_of_the_page_is_empty(tmp_path, undrawn):
    """Prevents a narrow table with nothing beside it."""
    for section in run_page(run_of(tmp_path)).sections:
        assert sum(not block.is_wide for block in section.blocks) % 2 == 0 or section.title == "Training"


# Plots --------------------------------------------------------------------------------------------------------


def test_calibration_stands_beside_the_scores(tmp_path):
    """Prevents differences without their unit or interval, and a table of nothing for a regression."""
    rows = {row[0]: row[1:] for row in calibration_table(run_of(tmp_path)).rows}
    assert rows["student"] == (f"6.4{GAP}%", "–", "0.540", "–")
    assert rows["teacher"][1:2] == ("+1.2 (−1.0 to +3.5), within noise",)
    assert rows["labels only"][3] == "−0.120 (−0.170 to −0.070)"
    assert calibration_table(run_of(tmp_path, calibration=None)) is None
    assert "negative log-likelihood of the labels 0.540 and 0.510 nats" in " ".join(
        fidelity_sentences(run_of(tmp_path))
    )


def test_scores_have_their_intervals(tmp_path):
    """Prevents dots that look as if they were exact."""
    with style():
        found, bare = scores_figure(run_of(tmp_path)), scores_figure(run_of(tmp_path, intervals=None))
    assert len(re.findall(r'id="scores-interval-\d"', found.svg)) == 4
    assert "interval 0.797 to 0.877" in found.description
    assert "interval" not in bare.svg + bare.note


@pytest.mark.parametrize(("floor", "shown"), [(0.175, "off this axis"), (0.8, "majority class 0.800")])
def test_the_axis_shows_the_differences(tmp_path, floor, shown):
    """Prevents an axis on which a far floor is all there is to see, and a floor that is not told."""
    with style():
        svg = scores_figure(run_of(tmp_path, **changed("baselines.majority.metrics.f1", floor))).svg
    texts = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    assert shown in texts
    assert ("off this axis" in texts) == (floor < 0.5)
    ticks = [float(text) for text in re.findall(r">(0\.\d\d)</text>", svg)]
    assert min(ticks) > 0.6


def test_a_logarithmic_axis_says_so(tmp_path):
    """Prevents a curve that is read on the wrong kind of axis."""
    history = [{"step": step, "loss": 10.0**-step, "hard_label": 1 + step / 10} for step in range(3)]
    with style():
        svg = terms_figure(run_of(tmp_path, training={"history": history})).svg
    assert "total loss (log axis)" in svg
    assert "hard_label, nats<" in svg


# Words --------------------------------------------------------------------------------------------------------


def told(text):
    return text.replace(GAP, " ")


def test_the_lead_is_made_of_the_figures(tmp_path):
    """Prevents a headline that says more than was measured."""
    assert told(headline(run_of(tmp_path))) == (
        "The student keeps 99.4 % of the teacher’s F1 (median of 3 seeds) with 77 % of the parameters (50 % of the "
        "encoder’s), 1.9× as fast (batch 32, real lengths, 2 threads)."
    )
    assert told(headline(run_of(tmp_path, seeds=None, efficiency=None))) == (
        "The student keeps 99.4 % of the teacher’s F1 with 77 % of the parameters (50 % of the encoder’s)."
    )
    assert told(headline(run_of(tmp_path, retention=None, efficiency=None, seeds=None))).startswith(
        "The student reaches F1 0.837 against the teacher’s 0.842 with 77 %"
    )
    assert told(headline(run_of(tmp_path, retention=1.012))).startswith("The student reaches 101.2 % of")
    for student, words in (
        (20.0, "2.0× as slow (batch 8, real lengths)."),
        (10.0, "no faster (batch 8, real lengths)."),
    ):
        entry = {"batch_size": 8, "lengths": "data", "models": {"teacher": {"p50": 10.0}, "student": {"p50": student}}}
        assert told(headline(run_of(tmp_path, **changed("efficiency.latency", [entry])))).endswith(words)


def gain(mean, low, high, seeds=3, over="no_distillation"):
    return changed(f"baselines.{over}.gain", {"mean": mean, "low": low, "high": high, "level": 0.95,
                                              "rows": 408, "seeds": seeds})  # fmt: skip


def untrained(mean, low, high):
    return gain(mean, low, high, over="copied_only")


def outdone():
    """A student on labels only that is better than the teacher, and than the distilled one."""
    loss = gain(-0.03, -0.05, -0.01)["baselines"]["no_distillation"]["gain"]
    return changed("baselines.no_distillation", {"metrics": {"f1": 0.9}, "gain": loss})


def test_the_verdict_follows_the_interval(tmp_path):
    """Prevents noise that is sold as a gain, and a loss that is hidden."""
    assert told(distillation_gain(run_of(tmp_path))) == (
        "Distillation adds 7.7 points of F1 over the same student trained on labels only (95 % interval 4.6 to 10.8, "
        "paired bootstrap over 408 rows and 3 seeds): outside the noise."
    )
    assert told(distillation_gain(run_of(tmp_path, **gain(0.01, -0.004, 0.024)))).endswith(
        "(95 % interval −0.4 to 2.4, paired bootstrap over 408 rows and 3 seeds): within the noise, the interval "
        "includes 0."
    )
    assert told(distillation_gain(run_of(tmp_path, **gain(-0.03, -0.05, -0.01)))).startswith(
        "Distillation costs 3.0 points of F1"
    )
    one = told(distillation_gain(run_of(tmp_path, **gain(0.07, 0.04, 0.1, seeds=1))))
    assert one.endswith(
        "1 seed): outside the noise. That is the noise of the rows; seeds add their own, which one seed cannot show."
    )
    assert "no student was trained on labels only" in distillation_gain(run_of(tmp_path, baselines=None))
    unmeasured = run_of(tmp_path, **changed("baselines.no_distillation.gain", None))
    assert "no gain over a student trained on labels only was measured" in distillation_gain(unmeasured)


def test_guessing_is_named(tmp_path):
    """Prevents a retention that looks high because guessing already scores high."""
    assert told(majority_note(run_of(tmp_path))) == (
        "Without a model, the majority class would reach 96.4 % of the teacher’s F1; of what the teacher has above "
        "that, the student keeps 83.3 %."
    )
    assert majority_note(run_of(tmp_path, retention_above_majority=-0.1)).endswith(
        "the student does not get above that."
    )
    assert majority_note(run_of(tmp_path, **changed("baselines.majority.metrics.f1", None))) == ""


def test_fidelity_of_each_kind_of_task(tmp_path):
    """Prevents classes where there are numbers or tokens."""
    regression = run_of(tmp_path, task="stsb", fidelity={"pearson": 0.98, "mean_absolute_difference": 0.11})
    assert fidelity_sentences(regression) == [
        "The outputs of teacher and student correlate at 0.980 (Pearson) and differ by 0.110 on average."
    ]
    tokens = run_of(tmp_path, task="mlm", headline="accuracy", fidelity={"agreement": 0.7, "kl": 0.4, "tokens": 3841})
    assert told(fidelity_sentences(tokens)[0]) == (
        "Teacher and student predict the same token for 70.0 % of 3,841 masked tokens. KL(teacher ‖ student) is "
        "0.400 nats on average, at temperature 1."
    )
    assert "top-1 accuracy" in headline(tokens)


def test_small_and_large_numbers():
    """Prevents figures that are rounded away, and digits that were not measured."""
    assert [decimal(value) for value in (0.8372, 0.00004, -0.0123, 12.34, 1234.5, 0.0)] == [
        "0.837", "4e−05", "−0.012", "12.3", "1,234", "0.000"]  # fmt: skip
    assert [told(duration(seconds)) for seconds in (12.2, 59.7, 412.3, 4320)] == [
        "12 s", "1 min 0 s", "6 min 52 s", "1 h 12 min"]  # fmt: skip


# Verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "severity", "expected"),
    [
        (changed("teacher.metrics.f1", 0.812), "stop", "The teacher knows no more than a guess: F1 0.812, where the"),
        ({"seeds": None, **changed("student.metrics.f1", 0.7)}, "stop", "Do not use this student, which knows no more"),
        (
            gain(0.01, -0.004, 0.024),
            "caution",
            "noise: over the same student trained on labels only +1.0 points of F1 (95 % interval −0.4 to +2.4).",
        ),
        (gain(-0.03, -0.05, -0.01), "caution", "Distillation cost 3.0 points of F1"),
        (
            untrained(0.01, -0.004, 0.024),
            "caution",
            "no difference beyond the noise: over the initialised student +1.0 points of F1 (95 % interval −0.4 to",
        ),
        (untrained(-0.03, -0.05, -0.01), "caution", "worse than its initialised copy was: −3.0 points of F1 (95 %"),
        (
            outdone(),
            "caution",
            "The teacher knows less than the student learns without: F1 0.842, where labels only reach 0.900.",
        ),
        ({"retention": 0.9}, "caution", "keeps 90.0 % of the teacher’s F1"),
        ({"retention_above_majority": 0.5}, "caution", "50.0 % of what the teacher has above the majority class"),
        (changed("teacher.metrics.f1", 0.82), "caution", "The teacher is hardly better than a guess"),
        ({"rows": {"evaluation": {"test": 900}, "in_training": {"test": 90}}}, "caution", "90 of 900 rows of test"),
        ({}, "good", "Distillation paid: the student keeps 99.4 % of the teacher’s F1, 7.7 points ahead"),
    ],
)
def test_the_verdict_is_of_this_run(tmp_path, undrawn, changes, severity, expected):
    """Prevents a page that opens with a retention where the teacher only guesses, or labels alone do as well."""
    run = run_of(tmp_path, **changes)
    lead = leading_verdict(run)
    assert lead.severity == severity
    assert expected in told(lead.text)
    page = run_page(run)
    assert (page.lead, page.severity) == (lead.text, severity)
    assert page.remarks[0] == headline(run)
    assert told(verdict_lines(verdicts(run))).startswith(f"{severity}:")


def test_the_worst_comes_first(tmp_path):
    """Prevents a student that guesses from being called near its teacher."""
    run = run_of(tmp_path, seeds=None, retention=0.5, **changed("student.metrics.f1", 0.5))
    assert [verdict.severity for verdict in verdicts(run)] == ["stop", "note"]
    noisy = run_of(tmp_path, retention=0.9, **gain(0.01, -0.004, 0.024))
    assert ["noise" in verdict.text for verdict in verdicts(noisy)] == [True, False]


def test_a_floor_that_is_no_number_is_zero(tmp_path):
    """Prevents a correlation of −0.1 that passes because a constant has none."""
    metrics = {"teacher": 0.8, "student": -0.1}
    models = {role: {"metrics": {"pearson": score}} for role, score in metrics.items()}
    baselines = {"majority": {"metrics": {"pearson": None}}}
    run = run_of(tmp_path, task="stsb", headline="pearson", seeds=None, baselines=baselines, **models)
    assert "pearson" in verdicts(run)[0].text.casefold()
    assert verdicts(run)[0].severity == "stop"


def test_limits_of_the_figures_do_not_lead(tmp_path, undrawn):
    """Prevents a headline that is a footnote."""
    run = run_of(tmp_path, seeds=None, baselines=None, rows={"evaluation": {"test": 60}})
    assert [verdict.severity for verdict in verdicts(run)] == ["note"] * 3
    assert run_page(run).lead == headline(run)


def test_a_few_training_rows_are_a_note(tmp_path):
    """Prevents a handful of common sentences from leading the page."""
    run = run_of(tmp_path, rows={"evaluation": {"test": 900}, "in_training": {"test": 4}})
    assert [verdict.severity for verdict in verdicts(run)] == ["good", "note"]
    assert told(verdicts(run)[1].text) == "Scores include training rows: 4 of 900 rows of test have the text of one."


def test_a_student_below_the_floor_is_not_to_be_shared(tmp_path):
    """Prevents "Share it on the Hub" for a student or a teacher that guesses."""
    for changes in (changed("teacher.metrics.f1", 0.8), {"seeds": None, **changed("student.metrics.f1", 0.5)}):
        text = " ".join(one.text + one.code for one in advice(run_of(tmp_path, **changes)))
        assert "Hub" not in text
        assert "from_pretrained" not in text
    assert "learned nothing yet" in text
    assert "The teacher is no better than" in said(run_of(tmp_path, **changed("teacher.metrics.f1", 0.8)))


def test_few_seeds_are_told(tmp_path):
    """Prevents an interval over two seeds, wider than that of one alone, which nobody explains."""
    two = {"f1": {"seeds": [42, 43], "values": [0.83, 0.84], "median": 0.835}}
    for seeds, told_first, advised in (
        (None, "One seed was run", "Only one seed was run"),
        (two, "Two seeds were run", "Only two seeds were run"),
    ):
        run = run_of(tmp_path, seeds=seeds)
        assert next(one.text for one in verdicts(run) if one.severity == "note").startswith(told_first)
        assert advised in said(run)
    assert "run:" not in " ".join(one.text for one in verdicts(run_of(tmp_path)))
    wider = student_t.ppf(0.975, 1) / student_t.ppf(0.975, 2) * (3 / 2) ** 0.5
    assert f"{wider:.1f} times narrower" in " ".join(one.text for one in verdicts(run_of(tmp_path, seeds=two)))


# Advice -------------------------------------------------------------------------------------------------------


def said(run):
    return " ".join(one.text for one in advice(run))


def test_advice_follows_the_figures(tmp_path):
    """Prevents advice that is always the same."""
    good = run_of(tmp_path, retention_above_majority=0.995)
    assert "fewer may do" in said(good)
    for changes, expected in (
        ({"baselines": None}, "labels only as well"),
        (untrained(0.01, -0.004, 0.024), "learned nothing yet"),
        ({"seeds": None}, "Only one seed"),
        (gain(0.01, -0.004, 0.024), "within the noise"),
        (gain(-0.03, -0.05, -0.01), "costs quality"),
        (
            outdone(),
            "less to teach than the labels (F1 0.842, where labels only reach 0.900): fine-tune it longer",
        ),
        ({"retention": 0.9}, "clearly below its teacher"),
        ({"retention_above_majority": 0.8}, "above the majority class the student keeps 80"),
        (changed("teacher.metrics.f1", 0.815), "hardly better than the majority class"),
        (changed("fidelity.ece", {"teacher": 0.05, "student": 0.12}), "soft targets"),
        (changed("fidelity.cka.values", [[0.2, 0.4]]), "CKA 0.40"),
    ):
        assert expected in said(run_of(tmp_path, **{"retention_above_majority": 0.97, **changes})), expected
        assert expected not in said(good), expected


def test_a_student_of_a_teacher_that_knows_little_is_not_to_be_smaller(tmp_path):
    """Prevents praise of a student for keeping what is less than the labels teach."""
    assert "fewer may do" not in said(run_of(tmp_path, retention_above_majority=1.2, **outdone()))


def test_there_are_three_to_five_pieces_of_advice_and_none_to_push_what_was_pushed(tmp_path):
    """Prevents a page that ends in a lecture, or in nothing."""
    everything = run_of(tmp_path, baselines=None, seeds=None, retention=0.5)
    assert len(advice(everything)) == 5
    calm = run_of(tmp_path, retention_above_majority=0.97)
    assert len(advice(calm)) == 3
    assert "push-to-hub" in "".join(one.code for one in advice(calm))
    pushed = run_of(tmp_path, retention_above_majority=0.97, **changed("recipe.hub.push", True))
    assert "push-to-hub" not in "".join(one.code for one in advice(pushed))


def test_more_steps_are_advised_where_steps_end_a_training(tmp_path):
    """Prevents more epochs for a training that max_steps ends, which would change nothing."""
    weak = example()
    weak["teacher"]["metrics"]["f1"] = 0.815
    weak["recipe"]["teacher"]["finetune"] = {"num_train_epochs": 3, "max_steps": 20}
    codes = " ".join(one.code for one in advice(run_of(tmp_path, teacher=weak["teacher"], recipe=weak["recipe"])))
    assert "teacher.finetune.max_steps=40" in codes
    assert "finetune.num_train_epochs" not in codes


def test_what_is_advised_is_a_recipe(tmp_path):
    """Prevents commands with keys that the recipe refuses."""
    import shlex

    from distil_nlp.recipe import load_recipe

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("teacher: {name: t}\ndata: {path: d, task: mrpc}\nobjective: {hard_label: {weight: 1.0}}\n")
    runs = [
        run_of(tmp_path, baselines=None, seeds=None, retention=0.5),
        run_of(tmp_path, retention_above_majority=0.995, **changed("fidelity.ece", {"teacher": 0.05, "student": 0.12})),
        run_of(tmp_path, **changed("fidelity.cka.values", [[0.2, 0.4]])),
        run_of(tmp_path, **changed("teacher.metrics.f1", 0.815)),
        run_of(tmp_path, **gain(-0.03, -0.05, -0.01)),
    ]
    codes = {one.code for run in runs for one in advice(run) if "distil-nlp distill" in one.code}
    assert len(codes) >= 8
    for code in codes:
        words = shlex.split(code.replace("\\\n", ""))
        assert words[:3] == ["distil-nlp", "distill", str(recipe)]
        adds = all(word.startswith(("evaluation.seeds", "evaluation.baselines")) for word in words[4:])
        assert load_recipe(recipe, words[3:]).training["output_dir"] == (str(tmp_path) if adds else f"{tmp_path}-next")


# Hostile text -------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>|`*_[x](javascript:1)\n# $\\frac{}$ -->"


def test_text_from_data_and_recipes_stays_text(tmp_path):
    """Prevents labels and names that run as code, end a table, or break the mathematics of a plot."""
    recipe = copy.deepcopy(example()["recipe"])
    recipe["teacher"]["name"] = HOSTILE
    recipe["data"]["text_columns"] = ["```\n<script>alert(2)</script>\n````"]
    results = {"labels": [HOSTILE, "$a_b$"], "recipe": recipe, **changed("environment.device", HOSTILE)}
    results |= {"teacher": {**example()["teacher"], "name": HOSTILE}}
    path = write_report([save(tmp_path / "a <b>$x$ | run", **results)])
    html, markdown = path.read_text(encoding="utf-8"), (path.parent / "report.md").read_text(encoding="utf-8")
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert "alert(1)" in page.text
    outside = re.sub(r"^(`{3,})yaml\n.*?^\1$", "", markdown, flags=re.M | re.S)
    assert outside != markdown
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(javascript", outside)
    assert "\n# " not in outside
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.M)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_recipe_shown_has_no_nulls(tmp_path, undrawn):
    """Prevents 41 lines of terms that were off, and a switch without values, or a null that was set, that goes too."""
    recipe = example()["recipe"]
    recipe["objective"] |= {"pkd": None, "hidden_mse": {"weight": 0.5, "schedule": {"weight": None}, "rows": "all"}}
    recipe["teacher"]["finetune"], recipe["data"]["augmentation"] = {}, {"mixup": None, "cutoff": None}
    recipe["training"]["optim_args"] = None
    shown = yaml.safe_load(run_page(run_of(tmp_path, recipe=recipe)).recipe)
    assert shown["teacher"] == {"name": "google-bert/bert-base-uncased", "finetune": {}}
    assert shown["objective"]["hidden_mse"] == {"weight": 0.5}
    assert shown["objective"]["soft_target_kl"]["schedule"] == {"weight": {"shape": "linear", "end": 0.5}}
    assert not {"pkd", "augmentation"} & {*shown["objective"], *shown["data"]}
    assert shown["training"]["optim_args"] is None


# Several runs -------------------------------------------------------------------------------------------------


def test_runs_side_by_side(tmp_path):
    """Prevents a comparison that leaves out a run, or what was changed between two."""
    first = save(tmp_path / "first")
    second = save(tmp_path / "second", retention=0.95, **changed("recipe.training.learning_rate", 5e-5))
    path = write_report([first, second, first])
    assert path == tmp_path / "comparison" / "report.html"
    markdown = (path.parent / "report.md").read_text(encoding="utf-8").replace(GAP, " ")
    assert "**first keeps most: 99.4 % of its teacher’s F1.**" in markdown
    assert "The seeds of first and second overlap" in markdown
    assert re.findall(r"^\| (first|second) \|", markdown, re.M) == ["first", "second"]
    assert re.findall(r"^\| ([a-z_.]+\.[a-z_.]+) \| (\S+) \| (\S+) \|", markdown, re.M) == [
        ("training.learning_rate", "0.0001", "5e-05")
    ]
    assert {file.name for file in path.parent.glob("*.png")} == {"scores.png", "quality_latency.png"}


def paired(low, high=0.05):
    """A comparison of any two runs, as `gain_on_same_rows` returns it."""
    return lambda run, other: {"mean": (low + high) / 2, "low": low, "high": high, "level": 0.95}


@pytest.mark.parametrize(
    ("low", "severity", "lead"),
    [
        (
            0.01,
            "good",
            "first is the best: ahead of second, the next, by +3.0 points of F1 (95 % interval +1.0 to +5.0)",
        ),
        (
            -0.02,
            "caution",
            "may be chance: first against second, +1.5 points of F1 (95 % interval −2.0 to +5.0), is within the noise",
        ),
    ],
)
def test_a_comparison_opens_with_its_verdict(tmp_path, undrawn, capsys, low, severity, lead):
    """Prevents a run that is called the best because of noise, and a comparison that hides what each run says."""
    first, worse = save(tmp_path / "first"), {**score(0.82), **gain(-0.03, -0.05, -0.01), "retention": 0.974}
    second = save(tmp_path / "second", **worse)
    path = write_report([second, first], gain_over=paired(low))
    text, printed = (told(part) for part in (Page(path.read_text()).text, capsys.readouterr().out))
    for shown in (" ".join(text.split()), " ".join(printed.split())):
        assert lead in shown
        assert "second: Distillation cost 3.0 points of F1" in shown
        assert "first: Distillation paid" in shown
    assert printed.startswith(f"{severity}:")
    assert "The seeds of" not in text
    assert "first keeps most" in text


def score(f1):
    """The example with another score of the student, of one seed."""
    return {"seeds": None, **changed("student.metrics.f1", f1)}


def test_a_student_of_no_use_is_not_the_best(tmp_path, undrawn, capsys):
    """Prevents praise of the best among students that guess."""
    runs = [save(tmp_path / name, **score(f1), retention=f1) for name, f1 in (("a", 0.5), ("b", 0.6))]
    write_report(runs, gain_over=paired(0.01))
    first, *own = capsys.readouterr().out.splitlines()
    assert first == "stop:    Use none of these students: no run has one that knows more than a guess."
    assert sum("Do not use this student" in line for line in own) == 2
    good = save(tmp_path / "good", retention=0.4)
    text = Page(write_report([*runs, good], gain_over=paired(0.01)).read_text()).text
    assert "good keeps most" in text
    assert "Share it" not in text


def test_runs_that_cannot_be_paired_are_compared_as_before(tmp_path, undrawn, capsys):
    """Prevents a claim about differences of scores on other rows."""
    runs = [save(tmp_path / name) for name in ("a", "b")]
    text = Page(write_report(runs).read_text()).text
    assert "a keeps most" in text
    assert "The seeds of a and b overlap" in text
    assert capsys.readouterr().out.startswith("good:    a: Distillation paid")


def test_runs_on_different_tasks_are_compared_by_retention(tmp_path):
    """Prevents F1 and a correlation on one axis."""
    first = save(tmp_path / "a" / "run")
    second = save(tmp_path / "b" / "run", task="stsb", headline="pearson", seeds=None, efficiency=None,
                  student={"metrics": {"pearson": 0.8}}, teacher={"metrics": {"pearson": 0.88}})  # fmt: skip
    path = write_report([first, second], tmp_path / "both")
    assert path.parent == tmp_path / "both"
    text = Page(path.read_text(encoding="utf-8")).text
    for expected in ("compare retention, not scores", "a/run", "b/run", "retention (student ÷ teacher)", "chance"):
        assert expected in text


# Mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"finished run / got .*run, where results.json cannot be read \(No such file"),
        ("{", r"results.json: expected JSON / got Expecting property name"),
        ('{"schema_version": 3}', r"expected schema_version 2 / got 3"),
        ("[]", r"expected schema_version 2 / got None"),
        ('{"schema_version": 1, "task": "mrpc", "teacher": []}', r"no usable headline, teacher, student"),
    ],
)
def test_a_folder_without_results_says_so(tmp_path, content, expected):
    """Prevents a traceback, or a report of nothing, for a wrong path."""
    (tmp_path / "run").mkdir()
    if content is not None:
        (tmp_path / "run" / "results.json").write_text(content)
    with pytest.raises(UserError, match=expected):
        write_report([tmp_path / "run"])


def test_a_place_that_cannot_be_written_to_says_so(tmp_path):
    """Prevents a traceback after all is drawn."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--output: expected a folder .* / got .*file"):
        write_report([save(tmp_path / "run")], tmp_path / "file")


def test_the_command_line(tmp_path, capsys):
    """Prevents a command that does not say where the report is, or fails without a message."""
    folder = save(tmp_path / "run")
    assert main(["make-report", str(folder), "--output", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "report.html")
    assert main(["make-report", str(tmp_path / "nowhere")]) == 2
    assert "error: expected the folder of a finished run" in capsys.readouterr().err


def test_labels_that_are_few_are_told():
    """Prevents a gain that looks as if both students had seen as much."""
    rows = {"train": 1600, "labelled": 300, "evaluation": {"test": 1213}}
    told = distillation_gain(RunResults("", Path(), example(rows=rows)))
    assert "labels only, which 300 of 1,600 rows have (95" in told
    assert "rows have" not in distillation_gain(RunResults("", Path(), example()))


def test_gradients_are_drawn_where_the_run_looked_at_them(tmp_path):
    """Prevents a line at 0 on a logarithmic axis, labels in raw TeX, and a seventh term without a line."""
    names = ["soft_target_kl", "hard_label", "attention_kl", *(f"older_{i}" for i in range(6))]
    history = [
        {"step": step, **{f"gradient_norm/{name}": 0.0 if name == "attention_kl" else step * 1e-3 for name in names}}
        for step in (1, 50)
    ]
    run = run_of(tmp_path, **changed("training.history", history))
    run.results["recipe"]["objective"] = {name: {"weight": 1.0} for name in names}
    with style():
        found = gradients_figure(run)
        assert gradients_figure(run_of(tmp_path)) is None
    assert "mathdefault" not in found.svg
    assert "older_5 from 0.001 to 0.05" in found.description
    assert "attention_kl from" not in found.description
    assert "act only below it: attention_kl" in found.note


def test_the_teachers_of_an_ensemble_are_shown(tmp_path, undrawn):
    """Prevents teachers whose worth nobody sees, the ensemble's score without another one, and a report of one teacher
    with a section for it."""
    interval = {"low": 0.8, "high": 0.9, "mean": 0.85, "level": 0.95, "rows": 408, "seeds": 1}
    members = [
        {"name": f"a/{name}", "revision": None, "weight": weight, "metrics": {"f1": score}, "interval": interval,
         "without": {"metrics": {"f1": left}, "interval": interval}, "row_weights": {"mean": mean, "counts": [1, 2]}}
        for name, weight, score, left, mean in (("one", 1.0, 0.85, 0.8, 0.25), ("two", 2.0, 0.8, 0.85, 0.75))
    ]  # fmt: skip
    results = example()
    further = {"name": "a/two", "revision": None, "weight": 2.0}
    results["recipe"]["teacher"] |= {"ensemble": [further], "mix": "probabilities", "weighting": "correctness"}
    results["teacher"] |= {"members": members, "metrics": {**results["teacher"]["metrics"], "f1": 0.875}}
    page = run_page(RunResults("run", tmp_path, results))
    (section,) = [one for one in page.sections if one.title == "Teachers"]
    assert section.sentences == [
        "The ensemble’s own score sees no labels: there teachers are weighted by how sure they are."
    ]
    assert ensemble_sentence(RunResults("run", tmp_path, results)) == (
        "The student learned from 2 teachers, whose probabilities were averaged, with weights 1, 2, in each row "
        "weighted by how near each teacher is to the label (CA-MKD)."
    )
    table = section.tables[0]
    assert table.rows[0] == ("1 one", "0.850", "0.800 to 0.900", "0.800", "+7.5", "1", f"25.0{GAP}%")
    assert table.rows[1][3:5] == ("0.850", "+2.5")
    assert f"1 one 25.0{GAP}%; 2 two 75.0{GAP}%" in section.pictures[0].description
    assert "Teachers" not in [one.title for one in run_page(RunResults("run", tmp_path, example())).sections]


def test_a_student_that_taught_itself_has_a_reference_and_no_teacher(tmp_path, undrawn):
    """Prevents a named model that is praised for what it did not teach: at the end of a run, and in its report."""
    results = example()
    results["recipe"]["teacher"]["self"] = {"kind": "ema", "decay": 0.99}
    folder = save(tmp_path / "run", recipe=results["recipe"])
    write_report([folder])
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    told = re.sub(r"```.*?```", "", text, flags=re.S).replace("without a teacher", "")
    assert "teacher" not in told.lower(), told
    assert "to compare with; it did not teach." in told
    assert "of the reference’s" in told
    table = summary_table(example(recipe=results["recipe"]))
    assert "reference" in table
    assert "teacher" not in table


def test_the_probe_is_drawn_beside_teacher_and_majority(tmp_path):
    """Prevents a curve without what it is to be compared with, and a drawing of a run without a probe."""
    facts = {
        "task": "sst2",
        "train_rows": 1000,
        "scored_rows": 872,
        "pooling": "mean",
        "majority": 0.509,
        "teacher": 0.78,
    }
    scores = [0.64, 0.66, 0.701, 0.722, 0.735, 0.741, 0.744]
    history = [{"step": 500 * i, "probe_accuracy": score} for i, score in enumerate(scores)]
    with style():
        drawn = probe_figure(run_of(tmp_path, training={"probe": facts, "history": history}))
        assert probe_figure(run_of(tmp_path)) is None
    assert "student from 0.640 to 0.744; teacher 0.780; majority class 0.509" in drawn.description
    assert all(f">{label}<" in drawn.svg for label in ("student", "teacher", "majority class"))
