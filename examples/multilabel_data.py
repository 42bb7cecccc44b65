"""Multi-label data of WNUT-17: which types of entities (person, location, …) occur in a text.

Run with the folder of a local copy of the dataset, and a folder for the rows:

    python examples/multilabel_data.py WNUT17 wnut17-types

Texts are the tokens with spaces between them. Most have no entity, so an empty list, which is a label too: none.
"""

import sys
from pathlib import Path

from datasets import load_dataset


def entity_types(row, names):
    """Return the text of a row, and the types of its entities by name."""
    tags = {names[tag] for tag in row["ner_tags"]}
    return {"text": " ".join(row["tokens"]), "labels": sorted({tag[2:] for tag in tags if tag != "O"})}


def write_rows(source, target):
    """Write a file of JSON lines for each split of the dataset."""
    Path(target).mkdir(parents=True, exist_ok=True)
    for split, rows in load_dataset(source).items():
        names = rows.features["ner_tags"].feature.names
        rows.map(entity_types, fn_kwargs={"names": names}, remove_columns=rows.column_names).to_json(
            Path(target) / f"{split}.jsonl"
        )


if __name__ == "__main__":
    write_rows(*sys.argv[1:])
