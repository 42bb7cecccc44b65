"""Recipes, studies and cards say what was published, and where it is written; what is our own is said to be ours."""

import re

import pytest

from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.hub.card_method import _terms
from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe import load_recipe, read_yaml
from distil_nlp.utils.settings import flatten
from tests.helpers import ROOT

VALUES = [
    # recipe, key, value, where it is written
    ("distilbert_base", "data.masking.rare_token_power", 0.7, "transformers-research-projects, distillation/train.py"),
    ("distilroberta_base", "data.masking.rare_token_power", 0.7, "the same script, for every masked LM"),
    ("distilbert_base", "training.adam_epsilon", 1e-6, "the same script"),
    ("tinybert_task", "training.lr_scheduler_type", "constant", "TinyBERT/task_distill.py: schedule 'none'"),
    ("tinybert_task", "training.warmup_steps", None, "TinyBERT/task_distill.py: schedule 'none'"),
    ("tinybert_task", "training.learning_rate", 5e-5, "TinyBERT/README.md"),
    ("tinybert_task_prediction", "training.warmup_steps", 0.1, "TinyBERT/task_distill.py --pred_distill"),
    ("tinybert_task_prediction", "training.learning_rate", 3e-5, "TinyBERT/README.md"),
    ("pkd", "objective.pkd.weight", 100 / 768, "run_student_patience.py: beta 100, mean over the width"),
    ("pkd", "training.warmup_steps", 0.1, "PKD-for-BERT-Model-Compression: warm-up 10 %"),
    ("pkd", "training.weight_decay", 0.01, "PKD-for-BERT-Model-Compression"),
    ("mobilebert_style", "objective.hidden_mse.weight", 100, "google-research/mobilebert, README's command"),
    ("mobilebert_style", "objective.attention_kl.weight", 1, "google-research/mobilebert, README's command"),
    ("rkd", "objective.rkd_distance.weight", 25, "RepDistiller, mdistiller"),
    ("rkd", "objective.rkd_angle.weight", 50, "RepDistiller, mdistiller"),
    ("minilmv2", "objective.query_relation.relation_heads", 48, "bloomberg/minilmv2.bb, run.sh"),
    ("minilmv2", "training.learning_rate", 6e-4, "bloomberg/minilmv2.bb, run.sh"),
]
STUDY = [
    ("hidden_emd", "hidden_emd", 0.01, "lxk00/BERT-EMD, README: --beta 0.01"),
    ("mmd", "mmd", 50, "RepDistiller, mdistiller: NST"),
    ("gram_flow", "gram_flow", 50, "RepDistiller: FSP"),
    ("pkd", "pkd", 100 / 768, "run_student_patience.py: beta 100"),
    ("pkd_largest", "pkd", 1000 / 768, "run_student_patience.py: beta 1000"),
    ("rkd", "rkd_distance", 25, "RepDistiller"),
    ("rkd", "rkd_angle", 50, "RepDistiller"),
    ("similarity_preserving", "similarity_preserving", 3000, "RepDistiller"),
    ("pkt", "pkt", 1000, "RepDistiller: 30000, of a sum over about 32 rows"),
]
VARIANTS = {
    "contrastive", "attention_mse", "binned_regression", "input_gradient", "hidden_emd", "factor_transfer",
    "adversarial", "linear_cka", "virtual_teacher", "embedding_similarity_kl", "listwise_kl",
    "replaced_tokens",
}  # fmt: skip
"""Terms that are another loss than that of the paper they name."""


@pytest.mark.parametrize(("recipe", "key", "value", "source"), VALUES)
def test_a_recipe_has_the_published_value(recipe, key, value, source):
    tree = flatten(read_yaml(ROOT / "recipes" / f"{recipe}.yaml"))
    expected = pytest.approx(value, rel=1e-3) if isinstance(value, int | float) else value
    assert tree.get(key) == expected, source


@pytest.mark.parametrize(("method", "term", "weight", "source"), STUDY)
def test_a_study_weighs_as_published(method, term, weight, source):
    study = read_yaml(ROOT / "recipes" / "study" / "methods.yaml")
    assert study["methods"][method][term]["weight"] == pytest.approx(weight, rel=1e-3), source


SAID = {
    "distilroberta_base": ["84.0 on MNLI where roberta-base has 87.6", "82.3 against 86.4"],
    "tinybert_general": ["fit_dense", "leaves it out"],
    "tinybert_task": ["constant", "padding"],
    "tinybert_task_prediction": ["stsb", "the labels"],
    "pkd": ["T 20, α 0.7, β 1", "T 10, α 0.7,", "do not normalise"],
    "mobilebert_style": ["takes the mean over layers", "layer norm without parameters", "weights 5000 and 5"],
    "rkd": ["n²", "n³"],
    "distilbert_base": ["sinusoidal_pos_embds", "4,000 examples"],
    "minilmv2": ["1e-6"],
    "fitnets": ["in no code that could be looked at"],
    "study/methods": ["else our own", "β = 100 and 1000"],
}


@pytest.mark.parametrize("recipe", SAID)
def test_a_header_says_where_it_differs(recipe):
    text = (ROOT / "recipes" / f"{recipe}.yaml").read_text()
    text = re.sub(r"\s*\n#\s*", " ", text)
    assert [words for words in SAID[recipe] if words not in text] == []


def test_no_header_repeats_what_was_not_so():
    texts = {path: path.read_text() for path in (ROOT / "recipes").rglob("*.yaml")} | {
        path: path.read_text() for path in (ROOT / "README.md", ROOT / "docs" / "losses.md")
    }
    wrong = ("roberta-base has 86.4", "is not needed where widths agree", "the paper's β = 50", "weights of 24")
    assert [(path.name, words) for path, text in texts.items() for words in wrong if words in text] == []
    assert "each with its paper's formula" not in texts[ROOT / "README.md"]


def test_terms_that_differ_from_their_paper_say_so():
    assert {name for name, term in TERMS.items() if term.is_variant} == VARIANTS
    assert all(TERMS[name].paper for name in VARIANTS)


@pytest.mark.parametrize("name", TERMS)
def test_a_cards_source_is_after_the_paper_where_the_term_differs(name, tmp_path):
    """Prevents a card that gives InfoNCE for CRD."""
    term = TERMS[name]
    results = {"task": "mrpc" if "distribution" in term.outputs else "stsb"}
    results["recipe"] = {"objective": {name: {"weight": 1.0}}}
    table = _terms(CardFacts("run", tmp_path, results))
    link = f"[{term.paper}](https://arxiv.org/abs/{term.paper})"
    assert (f"after {link}" in table) == term.is_variant
    assert (link in table) == bool(term.paper)


def test_recipes_load_with_their_values():
    for name in ("pkd", "tinybert_task", "mobilebert_style", "distilroberta_base"):
        load_recipe(ROOT / "recipes" / f"{name}.yaml")
