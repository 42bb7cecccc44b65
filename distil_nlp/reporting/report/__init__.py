"""`report/`: tables, sentences and plots from one `results.json`, or from several side by side."""

from distil_nlp.reporting.report.write import write_report

__all__ = ["write_report"]
