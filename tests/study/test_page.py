"""The page of a study, from the rows of its methods."""

from distil_nlp.study.page import write_study_page


def row(method, median, gain=None, stop=None):
    """A method's row of `study.json`, of two seeds."""
    interval = gain and {"mean": gain, "low": gain - 0.01, "high": gain + 0.01, "level": 0.95, "seeds": 2, "won": 2}
    return {"task": "rte", "method": method, "metric": "accuracy", "median": median, "values": [median, median],
            "seeds": 2, "compared_with": "plain", "gain": interval, "teacher": 0.7, "agreement": 0.8, "steps": 16,
            "beside": {"teacher": 0.7}, "seconds_per_step": 0.5, "times_plain": 1.0, "peak_mib": 900,
            "stop": stop}  # fmt: skip


def test_the_page_opens_with_the_best_method(tmp_path):
    """Prevents a page that praises a method whose student guesses, or a table that is wider than the page."""
    rows = [row("better", 0.6, 0.1), row("plain", 0.5), row("useless", 0.55, 0.2, "Do not use this student.")]
    folder = write_study_page("mine", {"rte": rows}, tmp_path).parent
    text = (folder / "report.md").read_text()
    assert "**better is 10.0 points ahead of plain (+9.0 to +11.0).**" in text
    assert "- stop: useless on rte: Do not use this student." in text
    heads = [line for line in text.splitlines() if line.startswith("| method")]
    assert [head.count("|") - 1 for head in heads] == [7, 4]
    two = (write_study_page("mine", {"rte": rows, "mrpc": rows[1:]}, tmp_path).parent / "report.md").read_text()
    assert "**rte: better is 10.0 points ahead of plain (+9.0 to +11.0). mrpc: No method is ahead of plain" in two
