"""The schema of `results.json`: one pydantic model for each block, with the meaning of every key.

Reading does not use these models, so that files of older versions, and files that lack a part, can still be shown.
`docs/results_schema.md` is made from them (`make docs-schema`).
"""

from distil_nlp.results.schema.base import Block
from distil_nlp.results.schema.results import SCHEMA_VERSION, Results, schema_mismatches

__all__ = ["SCHEMA_VERSION", "Block", "Results", "schema_mismatches"]
