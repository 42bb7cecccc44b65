"""The report of a run, and the comparison of several: tables, sentences and plots as HTML and Markdown."""

from distil_nlp.reporting.report.write import write_page, write_report

__all__ = ["write_page", "write_report"]
