"""What is told of a student that was cut from the important parts of its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distil_nlp.reporting.formatting import decimal, percent
from distil_nlp.reporting.scores import headline_name, headline_score
from distil_nlp.reporting.tables import Table, make_table
from distil_nlp.results import RunResults, get_nested

_BLOCK = "student.initialisation.pruning"
_CRITERIA = {
    "fisher": "by the Fisher information",
    "taylor": "by first-order Taylor terms",
    "obd": "by Optimal Brain Damage",
    "activation": "by the size of activations",
    "random": "at random",
}


def pruning_sentences(run: RunResults) -> list[str]:
    """Return what the student keeps of its teacher's layers and embeddings; [] for one with all of them."""
    block, embeddings = run.get(_BLOCK), run.get("student.initialisation.embeddings")
    told = [factorised_sentence(embeddings)] if embeddings else []
    if not block:
        return told
    return [*([search_sentence(block["search"])] if "search" in block else []), pruning_sentence(block), *told]


def factorised_sentence(embeddings: Mapping[str, Any]) -> str:
    """Return how narrow the student's embeddings are, from the block `embeddings` of `results.json`."""
    return (
        f"Its embeddings have {embeddings['size']:,} features and a projection to its width, factorised from the "
        f"teacher’s, of whose second moment they keep {percent(embeddings['variance'])}."
    )


def pruning_sentence(block: Mapping[str, Any]) -> str:
    """Return what a student keeps of its teacher's layers, from the block `pruning` of `results.json`."""
    names = {"feed_forward": "feed-forward units", "heads": "heads", "width": "features"}
    kept = [
        f"{block[key]:,} of {block['of'][key]:,} {name}"
        for key, name in names.items()
        if block[key] != block["of"][key]
    ]
    parts = ", ".join(kept) or "all parts"
    repaired = ""
    if block.get("repaired_on"):
        repaired = f"; its projections were then fitted to the teacher’s states on {block['repaired_on']:,} tokens"
    return f"Each of the student’s layers keeps {parts}, chosen {_CRITERIA[block['importance']]}{repaired}."


def search_sentence(search: Mapping[str, Any]) -> str:
    """Return which shape was found for a budget, from the block `search` of `results.json`."""
    budget, chosen, of = search["budget"], search["chosen"], search["teacher_cost"]
    unit, tried = budget["unit"], sum(bool(one["distances"]) for one in search["candidates"])
    trained = f", of which {tried} were trained for a while," if tried else ""
    shape = f"{chosen['layers']} layers of {chosen['heads']} heads and {chosen['units']:,} feed-forward units"
    return (
        f"Of {search['shapes']} shapes {search['fitting']} fit {_cost(budget['limit'], unit)}; of the "
        f"{len(search['candidates'])} that cannot grow{trained} {shape} were chosen, at "
        f"{_cost(chosen['cost'], unit)}, {percent(chosen['cost'] / of)} of the teacher’s."
    )


def _cost(value: float, unit: str) -> str:
    return f"{value:,.3g} {unit}" if value < 1e4 else f"{value / 1e6:,.1f} M {unit}"


def pruned_scores_table(run: RunResults) -> Table | None:
    """Return the scores of a pruned student as it was cut, repaired and trained; None for one with whole layers."""
    block, trained, repaired = run.get(_BLOCK), headline_score(run, "student"), headline_score(run, "copied_only")
    if not block or trained is None or repaired is None:
        return None
    rows = [("trained", decimal(trained.values[0]))]
    if "cut" in block:
        rows = [
            ("cut", decimal(get_nested(block, "cut", run.metric))),
            ("repaired", decimal(repaired.values[0])),
            *rows,
        ]
    else:
        rows = [("cut", decimal(repaired.values[0])), *rows]
    return make_table("Scores of the pruned student", ("student", headline_name(run)), rows, "Of the first seed.")
