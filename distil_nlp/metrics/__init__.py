"""A metric module for `evaluate`, on disk, because the official one is downloaded at run time."""

from pathlib import Path

GLUE_METRIC = str(Path(__file__).with_name("glue_metric.py"))
"""For `evaluate.load(GLUE_METRIC, "mrpc")`."""
