"""The page of a study, from the rows of its methods."""

import pytest

from distil_nlp.results import RunResults
from distil_nlp.study.axes import axis_of
from distil_nlp.study.choice import choice_sentences
from distil_nlp.study.page import write_study_page
from distil_nlp.study.table import method_table, reference_scores, spent_on


def row(method, median, gain=None, stop=None):
    """A method's row of `study.json`, of two seeds."""
    interval = gain and {"mean": gain, "low": gain - 0.01, "high": gain + 0.01, "level": 0.95, "seeds": 2, "won": 2}
    interval = interval and {**interval, "p_holm": 0.02}
    return {"task": "rte", "method": method, "metric": "accuracy", "median": median,
            "low": median, "high": median, "values": [median, median],
            "seeds": 2, "compared_with": "plain", "gain": interval, "teacher": 0.7, "agreement": 0.8, "steps": 16,
            "beside": {"teacher": 0.7}, "seconds_per_step": 0.5, "times_plain": 1.0, "peak_mib": 900,
            "seconds": 8.0, "tokens_forward": 2e6, "tokens_backward": 1e6, "flops": None, "flops_ratio": None,
            "accuracy": None, "stop": stop, "point": {}, "student": size()}  # fmt: skip


def size(**changes):
    """A student in a method's row."""
    return {"layers": 3, "parameters": 17.4e6, "encoder_parameters": 5.3e6, "size_mb": 69.6, "latency_ms": None,
            "setting": None, "cut": None} | changes  # fmt: skip


def test_the_page_opens_with_the_best_method(tmp_path):
    """Prevents a page that praises a method whose student guesses, or a table that is wider than the page."""
    rows = [row("better", 0.6, 0.1), row("plain", 0.5), row("useless", 0.55, 0.2, "Do not use this student.")]
    folder = write_study_page("mine", {"rte": rows}, tmp_path).parent
    text = (folder / "report.md").read_text()
    assert "**better is 10.0 points ahead of plain (+9.0 to +11.0).**" in text
    assert "- stop: useless on rte: Do not use this student." in text
    heads = [line for line in text.splitlines() if line.startswith("| method")]
    assert [head.count("|") - 1 for head in heads] == [8, 7]
    two = (write_study_page("mine", {"rte": rows, "mrpc": rows[1:]}, tmp_path).parent / "report.md").read_text()
    assert "**rte: better is 10.0 points ahead of plain (+9.0 to +11.0). mrpc: No method is ahead of plain" in two


def test_one_reason_is_told_once(tmp_path):
    """Prevents a page whose first screen is one sentence ten times."""
    rows = [row(name, score, 0.1, f"Do not use this student: {score}.") for name, score in (("a", 0.6), ("b", 0.5))]
    text = (write_study_page("mine", {"rte": rows}, tmp_path).parent / "report.md").read_text()
    assert "- stop: a, b on rte, each: Do not use this student." in text


def test_the_scores_beside_are_those_of_the_baseline(tmp_path):
    """Prevents the start of a student that begins elsewhere, as the best one may, from standing for all."""
    best = row("chained", 0.6, 0.1) | {"beside": {"teacher": 0.7, "untrained copy": 0.41}}
    rows = [best, row("plain", 0.5) | {"beside": {"teacher": 0.7, "untrained copy": 0.33}}]
    text = (write_study_page("mine", {"rte": rows}, tmp_path).parent / "report.md").read_text()
    assert "teacher 0.700, initialised student 0.330 (plain)." in text
    assert reference_scores(rows[:1]) == "teacher 0.700, initialised student 0.410"


def test_students_of_unlike_sizes_are_told_beside_each_other(tmp_path):
    """Prevents a score whose student is twice as large, or was no better before its training, without a word of it."""
    timed = {"setting": "batch 1, real lengths, 1 thread"}
    small = size(layers=6, parameters=10e6, size_mb=40.0, latency_ms=5.31, cut=0.31, **timed)
    rows = [
        row("cut", 0.6, 0.1) | {"student": small, "beside": {"untrained copy": 0.45}},
        row("plain", 0.5) | {"student": size(latency_ms=14.8, **timed), "beside": {"untrained copy": 0.4}},
    ]
    text = (write_study_page("mine", {"rte": rows}, tmp_path).parent / "report.md").read_text()
    assert "| cut | 6 | 10.0 M | 5.3 M | 40.0 | 5.31 | 0.310 | 0.450 |" in text.replace("\u00a0", " ")
    assert "| plain | 3 | 17.4 M | 5.3 M | 69.6 | 14.8 | – | 0.400 |" in text.replace("\u00a0", " ")
    assert "ms: median latency, batch 1, real lengths, 1 thread." in text
    alike = (write_study_page("mine", {"rte": [row("plain", 0.5)] * 2}, tmp_path).parent / "report.md").read_text()
    assert "Students" not in alike


T, RATE = "objective.soft_target_kl.temperature", "training.learning_rate"


def cells(method, points, gains, **more):
    """Rows at points of axes, each 0.5 and its gain."""
    rows = zip(points, gains, strict=True)
    return [{**row(method, 0.5 + (gain or 0), gain), "point": point, **more} for point, gain in rows]


def test_a_grid_is_a_heat_map_with_the_noise_hatched(tmp_path):
    """Prevents a colourful map of chance, and axes without names."""
    points = [{T: t, RATE: rate} for t in (1, 2) for rate in (1e-5, 1e-4)]
    rows = [*cells("kd", points, [0.1, 0.005, -0.1, 0.02]), {**row("plain", 0.5), "point": {}}]
    axes = [axis_of(T, [1, 2]), axis_of(RATE, [1e-5, 1e-4])]
    folder = write_study_page("mine", {"rte": rows}, tmp_path, axes).parent
    page = (folder / "report.html").read_text()
    assert (folder / "grid-rte-kd.png").stat().st_size > 5000
    assert page.count('id="grid-rte-kd-noise-') == 1
    for words in ("temperature T", "learning rate", "temperature T 1, learning rate 0.0001: +0.5 (within noise)"):
        assert words in page
    assert "study · 5\u00a0cells · rte" in page


def test_a_sweep_is_a_curve_and_labels_only_stay_where_they_have_no_point(tmp_path):
    """Prevents a baseline that is missing from the plot, because the key has no effect on it."""
    rows = [*cells("kd", [{T: t} for t in (1, 2, 4)], [0.1, 0.2, 0.05]), {**row("plain", 0.5), "point": {}}]
    folder = write_study_page("mine", {"rte": rows}, tmp_path, [axis_of(T, [1, 2, 4])]).parent
    page = (folder / "report.html").read_text()
    assert "kd: 1 0.600, 2 0.700, 4 0.550; plain: 1 0.500, 2 0.500, 4 0.500" in page
    assert "temperature T, logarithmic axis" in page


@pytest.mark.parametrize(("key", "unit"), [("data.share", "rows"), ("data.labelled_share", "labels")])
def test_a_learning_curve_tells_what_distilling_is_worth(tmp_path, key, unit):
    """Prevents a curve whose reader must measure how many labels are saved."""
    shares, counts = (0.1, 0.5, 1), (100, 500, 1000)
    curves = {"plain": (0.5, 0.6, 0.7), "kd": (0.6, 0.65, 0.8)}
    rows = [
        {**row(name, score, None if name == "plain" else 0.1), "point": {key: share}, "training_rows": count}
        for name, scores in curves.items()
        for share, count, score in zip(shares, counts, scores, strict=True)
    ]
    axes = [axis_of(key, shares)]
    text = (write_study_page("mine", {"rte": rows}, tmp_path, axes).parent / "report.md").read_text()
    assert f"kd with 100 {unit} is worth about 500 with plain." in text
    assert f"kd with 1,000 {unit} is worth more than all 1,000 with plain." in text


def test_what_took_more_is_drawn_over_what_it_took(tmp_path):
    """Prevents a method that is better because it computes more, and nobody sees it."""
    spent = (("plain", 0.5, None, 1e9), ("more", 0.6, 0.1, 4e9), ("waste", 0.55, 0.05, 9e9))
    rows = [{**row(name, score, gain), "flops": flops, "seconds": 1.0} for name, score, gain, flops in spent]
    folder = write_study_page("mine", {"rte": rows}, tmp_path).parent
    page = (folder / "report.html").read_text()
    assert "On the front: plain 0.500" in page
    assert "waste 0.55" not in page.split("On the front:")[1].split("</title>")[0]
    assert not (folder / "seconds-rte.png").exists(), "all took as long"


def test_what_to_choose_and_what_is_noise():
    """Prevents the best of many by chance, without a word on those that cannot be told from it."""
    rows = [row("best", 0.6, 0.1), row("equal", 0.59, 0.09), row("noise", 0.5, 0.001), row("plain", 0.5)]
    rows[0] |= {"flops": 4e9, "best_over": None}
    rows[1] |= {"flops": 1e9, "best_over": {"low": -0.01}}
    rows[2] |= {"best_over": {"low": 0.05}}
    rows[3] |= {"best_over": {"low": 0.05}}
    assert choice_sentences(rows) == [
        "Best by its mean score: best.", "Corrected for 3 comparisons its p is 0.02.", "Not told apart from it: equal.",
        "The cheapest of these is equal, at 25\u00a0% of its operations.", "Within the noise of plain: 1 of 3.",
    ]  # fmt: skip
    assert choice_sentences([row("plain", 0.5)]) == []


def test_the_best_point_is_that_of_the_best_score():
    """Prevents a learning rate that is chosen because the baseline collapses there."""
    rows = [
        *cells("kd", [{RATE: 1e-5}, {RATE: 1e-3}], [0.02, 0.2]),
        {**row("plain", 0.7), "point": {RATE: 1e-5}}, {**row("plain", 0.3), "point": {RATE: 1e-3}},
    ]  # fmt: skip
    rows[0] |= {"median": 0.72, "values": [0.72, 0.72], "best_over": None}
    rows[1] |= {"median": 0.5, "values": [0.5, 0.5], "best_over": {"low": 0.1}}
    told = choice_sentences(rows, [axis_of(RATE, [1e-5, 1e-3])])
    assert told[0] == "Best by its mean score: kd, learning rate 1e-05."
    assert "Not compared with it, of other rows or without outputs: plain, learning rate 1e-05; plain" in " ".join(told)
    shares = [{**one, "point": {"data.share": share}} for one, share in zip(rows, (0.1, 1, 0.1, 1), strict=True)]
    told = choice_sentences(shares, [axis_of("data.share", [0.1, 1])])
    assert told == ["Within the noise of plain: 0 of 2."], "more rows are no choice"


def test_the_verdict_holds_for_all_comparisons(tmp_path):
    """Prevents a first line that praises the luckiest of many, and one that has compared nothing."""
    lucky = row("lucky", 0.6, 0.1)
    lucky["gain"] |= {"p_holm": 0.3}
    text = (
        write_study_page("mine", {"rte": [lucky, row("plain", 0.5)]}, tmp_path / "a").parent / "report.md"
    ).read_text()
    assert "lucky is 10.0 points ahead of plain (+9.0 to +11.0) by itself, but not as one of 1 comparison." in text
    text = (write_study_page("mine", {"rte": [row("plain", 0.5)]}, tmp_path / "b").parent / "report.md").read_text()
    assert "Nothing was compared with plain." in text


def test_a_sweep_over_lists_is_drawn(tmp_path):
    """Prevents a study of layers that ends without its page."""
    key = "student.layers"
    rows = [*cells("kd", [{key: layers} for layers in ([0, 2], [1, 3], "last")], [0.1, 0.2, 0.05]), row("plain", 0.5)]
    axes = [axis_of(key, [[0, 2], [1, 3], "last"])]
    page = write_study_page("mine", {"rte": rows}, tmp_path, axes).read_text()
    assert "[0, 2] 0.600, [1, 3] 0.700, last 0.550" in page


def test_a_scheme_costs_what_all_its_stages_do(tmp_path):
    """Prevents a scheme of three trainings that is drawn at the cost of one."""
    own = {"seconds": 1.0, "flops": 2.0}
    plain = RunResults("plain", tmp_path, {"training": own})
    scheme = RunResults("scheme", tmp_path, {"training": own, "schemes": {"compute": {"all_stages": {"flops": 6.0}}}})
    assert [spent_on(run).get("flops") for run in (plain, scheme)] == [2.0, 6.0]


def test_accuracy_stands_beside_another_score(tmp_path):
    """Prevents F1 alone, which is high where one class is common and guessed."""
    rows = [row("better", 0.9, 0.1), row("plain", 0.8)]
    without = method_table(rows)
    assert "accuracy" not in without[0]
    table = method_table(
        [{**one, "metric": "f1", "accuracy": score} for one, score in zip(rows, (0.8, 0.7), strict=True)]
    )
    assert [line[table[0].index("accuracy")] for line in table] == ["accuracy", "0.800", "0.700"]
    assert len(table[0]) == len(without[0]) + 1


@pytest.mark.parametrize("tasks", [("rte", "mrpc")])
def test_several_tasks_have_a_mean_over_them(tmp_path, tasks):
    rows = {task: [row("better", 0.6, 0.1), row("plain", 0.5)] for task in tasks}
    text = (write_study_page("mine", rows, tmp_path).parent / "report.md").read_text()
    assert "All tasks together" in text
    assert "85.7 %" in text
