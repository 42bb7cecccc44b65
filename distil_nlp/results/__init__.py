"""`results.json`, the file between measuring and reporting: its schema, writing and reading."""

from distil_nlp.results.files import drop_non_finite, get_nested, has_results, read_results, read_run, write_results
from distil_nlp.results.run import RunResults, read_runs
from distil_nlp.results.schema import SCHEMA_VERSION, Results, schema_mismatches
from distil_nlp.results.seeds import summarize_seeds
from distil_nlp.results.upgrade import READABLE_VERSIONS

__all__ = [
    "READABLE_VERSIONS",
    "SCHEMA_VERSION",
    "Results",
    "RunResults",
    "drop_non_finite",
    "get_nested",
    "has_results",
    "read_results",
    "read_run",
    "read_runs",
    "schema_mismatches",
    "summarize_seeds",
    "write_results",
]
