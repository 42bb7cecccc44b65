"""The schema of recipes with terms of one's own: `objective` has a key for each of them, in these recipes alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from inspect import Parameter, signature
from typing import get_type_hints

from pydantic import PydanticUserError, create_model

from distil_nlp.errors import UserError, listed, quoted
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import LossTerm
from distil_nlp.recipe.plugins import Plugin
from distil_nlp.recipe.sections import Recipe, Section, objective_section, term_section
from distil_nlp.results.schema.training import HistoryEntry

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_METRICS = (
    *("accuracy", "exact_match", "f1", "f1_macro", "f1_micro", "matthews_correlation", "mean_average_precision"),
    *("mrr_at_10", "mse", "ndcg_at_10", "pearson", "pearson_cosine", "perplexity", "precision", "recall"),
    *("spearman_cosine", "spearmanr"),
)
_LOGGED = frozenset({*HistoryEntry.model_fields, "tokens_per_second", "total_flos", *_METRICS})
"""Names of other numbers in the log of a training: of `Trainer`, and of the metrics of all kinds of task."""
_PREFIXES = ("train_", "eval_", "test_")
"""Beginnings of the names that `Trainer` gives to summaries and to the numbers of an evaluation."""


def recipe_class(plugins: Sequence[Plugin]) -> type[Recipe]:
    """Return `Recipe`, whose objective has a key for each term of the plugins too.

    Raises:
        UserError: for a term whose name, texts or constructor cannot be used, and for two terms of one name.
    """
    if not plugins:
        return Recipe
    terms = dict(TERMS)
    for plugin in plugins:
        for term in plugin.terms:
            where = f"plugins: {plugin.name}, {term.__name__}"
            _check_name(where, term.name, terms)
            _check_texts(where, term)
            _check_constructor(where, term)
            terms[term.name] = term
    schema = create_model("Recipe", __base__=Recipe, objective=(objective_section(terms), ...))
    schema.terms, schema.imported = terms, tuple(plugins)
    return schema


def _check_name(where: str, name: str, known: Iterable[str]) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(where, "a name of small letters, digits and _", f"name = {quoted(name)}", fix="rename it")
    if name in known or name == "balance" or hasattr(Section, name):
        kind = "one of the tool's own terms" if name in TERMS else "taken already"
        raise UserError(where, "a name of its own", f"name = {quoted(name)}, {kind}", fix="give it another name")
    if _is_logged(name, known):
        raise UserError(
            where,
            "a name of its own",
            f"name = {quoted(name)}, the name of a metric or of another number in the log",
            why="the log could not tell them apart",
            fix=f"give it another name, such as {name.removesuffix('_weight')}_distance",
        )


def _is_logged(name: str, known: Iterable[str]) -> bool:
    """Return whether the log has, or may have, another number of a term's name; weights are `<term>_weight` there."""
    weights = {f"{term}_weight" for term in known}
    return name in _LOGGED or name in weights or f"{name}_weight" in known or name.startswith(_PREFIXES)


def _check_texts(where: str, term: type[LossTerm]) -> None:
    for text, example in (("formula", "mean absolute difference of the states"), ("unit", "absolute difference")):
        if not isinstance(getattr(term, text, None), str):
            why = "the model card and the report's axes have it"
            raise UserError(where, f"its {text} in words", "none", why=why, fix=f"add {text} = {example!r}, say")


def _check_constructor(where: str, term: type[LossTerm]) -> None:
    """Raise UserError unless the arguments of a term can be the keys of a recipe."""
    options = list(signature(term.__init__).parameters.values())[1:]
    try:
        hints = get_type_hints(term.__init__, include_extras=True)
        several = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD, Parameter.POSITIONAL_ONLY)
        loose = [str(option) for option in options if option.kind in several or option.name not in hints]
        if loose:
            raise TypeError(f"{listed(loose)} without a type, or without a name")
        if "weight" not in hints:
            raise TypeError("no argument weight")
        term_section(term)
    except (TypeError, NameError, PydanticUserError) as error:
        raise UserError(
            where,
            "a constructor with typed arguments, weight: float = 1.0 the first",
            " ".join(str(error).split()),
            why="they are its keys in a recipe",
            fix="annotate them, such as margin: float = 0.5, and leave *args and **kwargs out",
        ) from error
