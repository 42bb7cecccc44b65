"""The model card: what the Hub reads of it, what a reader reads, and what must not be in it."""

import json
import re
import tomllib
from pathlib import Path

import jinja2
import jinja2.meta
import pytest
import transformers
import yaml
from huggingface_hub import ModelCard

from distil_nlp.hub import render_card, teacher_metadata, write_card
from distil_nlp.hub.card import PLACEHOLDER, TEMPLATE
from distil_nlp.hub.card_context import card_context
from distil_nlp.hub.card_facts import CardFacts
from distil_nlp.losses.registry import TERMS
from distil_nlp.recipe import load_recipe
from distil_nlp.redaction import redact_paths
from distil_nlp.reporting.formatting import GAP
from distil_nlp.results import drop_non_finite
from distil_nlp.results.predictions import write_predictions
from tests.helpers import ROOT, tiny
from tests.helpers.showcase import PREDICTIONS, example, exits, exported

CARD = {"license": "apache-2.0", "language": "en", "base_model": "google-bert/bert-base-uncased"}


def with_recipe(**sections):
    """The example, with some values of its recipe replaced."""
    results = example()
    for section, values in sections.items():
        results["recipe"].setdefault(section, {}).update(values)
    return results


def card(results, folder=Path("runs/glue-mrpc-42/student")):
    return ModelCard(render_card(results, folder))


def section(text, name):
    return re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", text, re.M | re.S)[1]


def test_the_hub_reads_back_what_was_written(tmp_path):
    """Prevents metadata that is lost on the way through the file: licence, lineage, scores."""
    student = tmp_path / "glue-mrpc-42" / "student"
    tiny.classifier(2).save_pretrained(student)
    results = example()
    results["teacher"]["card"] = CARD
    path = write_card(results, student)
    assert path == student / "README.md"
    found = ModelCard.load(path).data
    assert (found.license, found.language, found.library_name) == ("apache-2.0", "en", "transformers")
    assert (found.base_model, found.base_model_relation) == ("google-bert/bert-base-uncased", "finetune")
    assert (found.datasets, found.metrics, found.pipeline_tag) == (
        ["nyu-mll/glue"],
        ["accuracy", "f1"],
        "text-classification",
    )
    assert {"distillation", "knowledge-distillation", "distil_nlp", "glue", "mrpc"} == set(found.tags)
    assert found.model_name == "glue-mrpc-42"
    scores = {score.metric_type: score for score in found.eval_results}
    assert {name: score.metric_value for name, score in scores.items()} == {"accuracy": 0.75, "f1": 0.837}
    one = scores["f1"]
    assert (one.task_type, one.dataset_type, one.dataset_name) == ("text-classification", "nyu-mll/glue", "GLUE MRPC")
    assert (one.dataset_config, one.dataset_split) == ("mrpc", "validation")
    assert ModelCard(str(ModelCard.load(path))).data.to_dict() == found.to_dict()
    assert "`BertForSequenceClassification` of 2 layers" in path.read_text()


def test_several_splits_are_several_results():
    """Prevents MNLI's two splits from being reported as one, or the first of them twice."""
    results = with_recipe(data={"task": "mnli"})
    metrics = {"accuracy": 0.8, "validation_matched/accuracy": 0.8, "validation_mismatched/accuracy": 0.81}
    results.update(
        task="mnli", headline="accuracy", rows={"evaluation": {"validation_matched": 9, "validation_mismatched": 8}}
    )
    results["student"]["metrics"] = metrics
    found = {score.dataset_split: score.metric_value for score in card(results).data.eval_results}
    assert found == {"validation_matched": 0.8, "validation_mismatched": 0.81}


@pytest.mark.parametrize(
    ("task", "metrics", "identifiers", "tag"),
    [
        ("stsb", {"pearson": 0.8, "spearmanr": 0.79}, ["pearsonr", "spearmanr"], "text-classification"),
        ("cola", {"matthews_correlation": -0.02}, ["matthews_correlation"], "text-classification"),
        ("classification", {"accuracy": 0.9, "f1_macro": 0.8}, ["accuracy", "f1"], "text-classification"),
        ("mlm", {"loss": 4.6, "perplexity": 108.2, "accuracy": 0.27}, ["perplexity", "accuracy"], "fill-mask"),
    ],
)
def test_metrics_have_the_hubs_own_names(task, metrics, identifiers, tag):
    """Prevents scores under names that the Hub does not know, and a widget that cannot run the model."""
    found = card({"task": task, "student": {"metrics": metrics}}).data
    assert [score.metric_type for score in found.eval_results] == identifiers
    assert [score.metric_value for score in found.eval_results] == [metrics[name] for name in metrics if name != "loss"]
    assert found.pipeline_tag == tag


def test_the_teachers_own_card_is_asked(tmp_path):
    """Prevents a licence, language or lineage that somebody typed; Norwegian is `no`, which YAML takes for false."""
    text = (
        "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\nlanguage: [no, en]\nbase_model: me/base\n---\n"
    )
    (tmp_path / "README.md").write_text(text)
    found = teacher_metadata(str(tmp_path))
    assert found == {"license": "other", "license_name": "mine", "language": ["no", "en"], "base_model": "me/base"}
    results = with_recipe(teacher={"name": str(tmp_path)})
    results["teacher"]["card"] = found
    data = card(results).data
    assert (data.license_name, data.language, data.base_model) == ("mine", ["no", "en"], "me/base")


@pytest.mark.parametrize(
    "text", [None, "no metadata", "---\n- a list\n---\n", "---\nlicense: [\n---\n", "---\nmodel-index: 3\n---"]
)
def test_a_teacher_without_a_usable_card_says_nothing(tmp_path, text):
    """Prevents a run that ends because of somebody's README."""
    if text is not None:
        (tmp_path / "README.md").write_text(text)
    assert teacher_metadata(str(tmp_path)) == {}


def test_a_teacher_on_the_hub_is_the_base_even_offline():
    """Prevents a student without lineage where the network is down."""
    assert teacher_metadata("me/some-teacher")["base_model"] == "me/some-teacher"


def test_missing_values_leave_no_holes():
    """Prevents cards that say None, nan or that more information is needed."""
    whole = example()
    whole["teacher"]["metrics"]["f1"] = float("nan")
    thinner = [{key: value for key, value in whole.items() if key != left} for left in whole if left != "task"]
    for results in (
        whole,
        *thinner,
        {"task": "mlm"},
        {"task": "stsb", "recipe": {}},
        with_recipe(objective={"hard_label": None}),
    ):
        text = render_card(results, Path("nowhere/student"))
        assert not re.search(r"\bNone\b|\bnan\b|\bnull\b|[Mm]ore [Ii]nformation", text.split("<details>")[0])
        assert ModelCard(text).data.tags
    assert "How it was distilled" not in render_card({"task": "mlm"}, Path("nowhere/student"))


def test_what_speaks_against_the_student_comes_first():
    """Prevents a card that opens with a retention where teacher or student only guesses."""
    results = example(seeds=None)
    results["student"]["metrics"]["f1"] = 0.5
    text = render_card(results, Path("nowhere/student"))
    assert text.index("> **Do not use this student") < text.index("A `model` distilled from")
    assert "> **" not in render_card(example(), Path("nowhere/student"))


def test_texts_of_the_data_are_not_in_the_card(tmp_path):
    """Prevents rows of users' data from being published."""
    write_predictions(tmp_path, PREDICTIONS)
    assert "first text 1" not in render_card(example(), tmp_path / "student")


def test_no_local_path_and_no_token_gets_out(tmp_path):
    """Prevents home directories and credentials from being published, in prose and in the recipe shown."""
    home = tmp_path / "home" / "anna maria"
    (home / "data" / "books").mkdir(parents=True)
    results = with_recipe(
        teacher={"name": str(home / "minilm"), "folder": "~/secret/t", "finetune": {"logging_dir": str(home / "logs")}},
        student={"name": "../secret/start"},
        data={"path": str(home / "data" / "books")},
        training={
            "output_dir": "C:\\Users\\anna maria\\runs\\x",
            "hub_token": "hf_" + "a" * 30,
            "run_name": f"at {tmp_path}/secret/y",
            "deepspeed": "file:///secret/zero.json",
        },
    )
    results["teacher"]["name"] = results["recipe"]["teacher"]["name"]
    results["student"]["initialisation"] = {"teacher_layers": None, "checkpoint": "/secret/place/start"}
    text = render_card(results, tmp_path / "run" / "student")
    assert not [word for word in (str(tmp_path), "anna", "secret", "hf_a", "hub_token", "C:") if word in text]
    shown = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.S)[1])
    assert (shown["teacher"]["name"], shown["data"]["path"], shown["training"]["output_dir"]) == (
        "minilm",
        "books",
        "x",
    )
    assert (shown["training"]["run_name"], shown["training"]["deepspeed"]) == ("at y", "zero.json")
    assert "hub" not in shown
    assert "base_model" not in ModelCard(text).data.to_dict()
    assert ModelCard(text).data.datasets is None
    assert ModelCard(text).data.eval_results[0].dataset_type == "unknown"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("https://huggingface.co/me/x/tree/main", "https://huggingface.co/me/x/tree/main"),
        ("build/quickstart/data", "data"),
        ("/home/anna/data/", "data"),
        ("~/data", "data"),
        ("\\\\server\\share\\anna\\data", "data"),
        ("no file /home/anna/a b", "no file a b"),
        ("![loss](loss.png) in (/home/anna/runs/x), 3/4 km/h", "![loss](loss.png) in (x), 3/4 km/h"),
        ("token hf_aBcDeFgHiJkLmNoPqRsTuVwX", "token hf_…"),
        (["/home/anna/x", {"labels": ["/r/cats"]}, 3, None], ["x", {"labels": ["/r/cats"]}, 3, None]),
    ],
)
def test_paths_are_told_from_names_and_prose(text, shown):
    """Prevents a path that slips through in another form, and names or links that are cut down like paths."""
    assert redact_paths(text) == shown


def strictly_rendered(results, folder):
    """The body of a card, where a name that is missing is an error; and the names that the template looks up."""
    facts = CardFacts(folder.resolve().parent.name, folder.parent, drop_non_finite(results))
    context = card_context(facts, folder) | {"model_name": PLACEHOLDER, "card_data": "x: 1"}
    strict = jinja2.Environment(undefined=jinja2.StrictUndefined)
    text = TEMPLATE.read_text(encoding="utf-8")
    unused = context.keys() - jinja2.meta.find_undeclared_variables(strict.parse(text))
    return strict.from_string(text).render(context), unused


AUGMENTATION = {
    "mixup": {"share": 0.5, "alpha": 0.4},
    "cutoff": {"share": 1.0, "probability": 0.1},
    "replacement": {"copies": 20, "probability": 0.4, "candidates": 15, "model": None, "folder": "runs/augmented"},
}


OWN_CODE = {
    "name": "/home/anna/secret/my_terms.py",
    "sha256": "ab" * 32,
    "terms": {
        name: {"class_name": "L1", "formula": "the <b>gap</b> | *of* states", "formula_of_regression": None,
               "unit": "gap", "paper": paper, "is_variant": False}
        for name, paper in (("hidden_l1", "1908.09355"), ("other", None), ("unused", "[x](javascript:alert)"))
    },
}  # fmt: skip


def with_own_terms():
    return with_recipe(objective={name: {"weight": 1.0} for name in ("hidden_l1", "other")}) | {"own_code": [OWN_CODE]}


def test_terms_of_ones_own_are_told_apart():
    """Prevents code that nobody knows from passing for the tool's, and its words from becoming markup or paths."""
    card = render_card(with_own_terms(), Path("runs/x/student"))
    formula = r"the &lt;b&gt;gap&lt;/b&gt; \| \*of\* states"
    source = "own code, `my_terms.py`"
    rows = [line for line in card.splitlines() if line.startswith(("| `hidden_l1`", "| `other`"))]
    assert all(f" | {formula} | 1 | " in row for row in rows)
    assert rows[0].endswith(f" | {source}, after [1908.09355](https://arxiv.org/abs/1908.09355) |")
    assert rows[1].endswith(f" | {source} |")
    for name in ("hidden_l1", "other"):
        assert f"`{name}` of `my_terms.py` (SHA-256 `{'ab' * 32}`)" in card
    assert "It runs code of the author’s own (`plugins`), which is not part of this repository." in card
    assert not re.search("unused|javascript|anna|<b>", card)
    assert "own code" not in render_card(example(), Path("runs/x/student"))


@pytest.mark.parametrize(
    "results",
    [
        example(),
        with_own_terms(),
        {"task": "mlm"},
        {"task": "stsb", "recipe": {}},
        with_recipe(data={"augmentation": AUGMENTATION, "masking": {"probability": 0.15}}) | {"task": "mlm"},
        with_recipe(
            teacher={"ensemble": ["a/b", {"name": "c/d", "revision": None, "weight": 2.0}], "finetune": None},
            objective={name: {"layers": "all"} for name in TERMS},
        ),
        example(student={"initialisation": {"teacher_layers": None, "checkpoint": "a/b"}}, labels=["a"] * 30),
        example(**exits()),
        example(export=exported(), efficiency=None),
        example(export=exported(), task="embedding"),
    ],
    ids=[
        "whole",
        "own terms",
        "nothing",
        "no recipe",
        "augmented",
        "ensemble",
        "checkpoint",
        "exits",
        "exported",
        "exported encoder",
    ],
)
def test_the_template_and_its_values_fit(results):
    """Prevents a hole in the prose where a name is spelt otherwise than its value: jinja shows nothing for it."""
    text, unused = strictly_rendered(results, Path("runs/x/student"))
    assert unused == set()
    assert (
        text.partition("\n# ")[2].strip() == render_card(results, Path("runs/x/student")).partition("\n# ")[2].strip()
    )
    assert "\n\n\n" not in text
    assert not re.search(r"[ \t]$", text, re.M)


def test_what_is_read_is_shipped():
    """Prevents a wheel without the template, which nobody notices who runs from the repository."""
    package = ROOT / "distil_nlp"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["distil_nlp"]
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    assert TEMPLATE in shipped
    found = {path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in found if path.suffix != ".py"} == shipped


def test_text_from_data_is_no_markup():
    """Prevents HTML, links, emphasis or headings that somebody's file names, devices or settings bring along."""
    hostile = "<script>alert(1)</script>|`*_[x](javascript:1)\n# heading"
    results = with_recipe(
        teacher={"name": hostile, "finetune": {"optim": hostile}},
        student={"name": hostile},
        data={"path": hostile, "name": hostile, "revision": hostile, "train_split": hostile, "task": "classification"},
        training={"lr_scheduler_type": hostile, "optim": hostile},
        objective={hostile: {"weight": 1.0, "layers": hostile, "rows": hostile}},
        balance={"kind": hostile},
    )
    results["environment"].update(device=hostile, commit=hostile, versions={hostile: hostile})
    results["teacher"]["card"] = {"language": [hostile]}
    results["efficiency"]["device"] = hostile
    results["student"]["initialisation"] = {"teacher_layers": None, "checkpoint": hostile}
    results["student"]["metrics"] = {"accuracy": 0.5, f"{hostile}/accuracy": 0.5}
    results.update(task="classification", headline=hostile, labels=[hostile], rows={"evaluation": {hostile: 3}})
    body = render_card(results, Path("runs/x/student")).partition("\n---\n")[2]
    prose = re.sub(r"^(`{3,})\w+\n.*?^\1$", "", body, flags=re.M | re.S)
    prose = re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", prose)  # inline code
    assert not re.findall(r"<(?!/?(?:details|summary)>)", prose)
    assert not re.search(r"(?<!\\)\]\(javascript", prose)
    assert not re.search(r"^# heading", body, re.M)
    for table in re.findall(r"(?:^\|.*\n)+", body, re.M):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_recipe_shown_is_short_and_runs_the_same(tmp_path):
    """Prevents a card with 41 terms of null, or a short recipe that is another one."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "teacher: {name: a/b, cache: {}}\ndata: {path: c/d, task: mrpc, masking: {probability: 0.15}}\n"
        "objective: {hard_label: {}, pkd: {weight: 10}}\ntraining: {learning_rate: 5e-5}\n"
    )
    recipe = load_recipe(path)
    text = render_card(example(recipe=recipe.model_dump(mode="json")), Path("runs/x/student"))
    shown = re.search(r"```yaml\n(.*?)```", text, re.S)[1]
    assert yaml.safe_load(shown) == {
        "teacher": {"name": "a/b", "cache": {}},
        "data": {"path": "c/d", "task": "mrpc"},
        "objective": {"hard_label": {"weight": 1.0}, "pkd": {"weight": 10.0}},
        "training": {"learning_rate": 5e-5},
    }
    path.write_text(shown)
    assert load_recipe(path) == recipe


def test_no_value_breaks_the_markdown_or_the_yaml():
    """Prevents class names or file names that end a code block, a table or the YAML header."""
    nasty = ["a|b", "`tick`", "```", "---\nlicense: mit", "</details>", "{{ 1 + 1 }}", "$$x$$", "é: [", " "]
    results = with_recipe(
        data={
            "path": "/x/```\n# heading",
            "name": "---\nlicense: mit",
            "task": "classification",
            "revision": "a|b",
            "text_columns": ["```"],
        }
    )
    results.update(task="classification", labels=nasty, rows={"train": 1, "evaluation": {"a|b `c`": 3, "---": 2}})
    results["student"]["metrics"] = {"accuracy": 0.5, "a|b `c`/accuracy": 0.5}
    text = render_card(results, Path("runs/x/student"))
    found = ModelCard(text).data
    assert found.license is None
    assert found.eval_results[0].dataset_config == "---\nlicense: mit"
    assert "{{ 1 + 1 }}" in text
    fences = re.findall(r"^(`{3,})(\w*)$", text, re.M)
    assert [language for _, language in fences] == ["python", "", "yaml", "", "bibtex", ""]
    assert yaml.safe_load(re.search(r"^````+yaml\n(.*?)^````+$", text, re.M | re.S)[1])["data"]["text_columns"] == [
        "```"
    ]
    assert not re.search(r"^# heading", text, re.M)
    rows = [line for line in section(text, "Quality").splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_quality_stands_beside_its_floors():
    """Prevents a retention shown without what no model and no distillation reach, or a gain without its interval."""
    results = example()
    results["baselines"]["copied_only"]["gain"] |= {"low": -0.004, "high": 0.044, "outside_noise": False}
    text = render_card(results, Path("runs/x/student")).replace(GAP, " ")
    rows = {
        row.split(" | ")[0].strip("| *"): row for row in section(text, "Quality").splitlines() if row.startswith("|")
    }
    assert "0.837 | 0.835 to 0.839 (3) |" in rows["student"]
    assert "+7.7 (+4.6 to +10.8) |" in rows["labels only"]
    assert "+2.0 (−0.4 to +4.4), within noise |" in rows["initialised student"]
    assert "> **Training made no difference beyond the noise: over the initialised student +2.0 points of F1" in text
    assert "0.812" in rows["majority class"]
    assert "those of seed 42: F1 0.837, accuracy 0.750." in text
    assert "**The student keeps 99.4 % of the teacher’s F1 (median of 3 seeds) with 77 % of the parameters" in text
    assert "Without a model, the majority class would reach 96.4 %" in text
    cost = section(text, "Size and speed")
    assert "| batch 32, real lengths, 2 threads | 226 / 272 / 317 | 120 / 144 / 168 | 141 | 267 | 1.9× |" in cost
    assert "From 408 rows its accuracy is known to ±0.042" in text


def test_the_terms_are_told_with_their_weights():
    """Prevents a card that leaves out how the loss was made up, or lists terms that were off."""
    layers = [["embeddings", "embeddings"], [2, 0]]
    results = with_recipe(objective={"hidden_mse": {"weight": 0.5, "layers": layers}, "attention_kl": {"weight": 0.0}})
    told = section(render_card(results, Path("runs/x/student")), "How it was distilled")
    assert re.search(r"`soft_target_kl` \|.*\| 1 → 0.5, linear \| 2 \|", told)
    assert "| 0.5 |  | embeddings→embeddings, 2→0 |" in told
    assert "attention_kl" not in told
    assert all(term.formula for term in TERMS.values())


def test_the_papers_of_the_terms_and_of_the_data_are_cited():
    """Prevents a card that uses somebody's method and does not name them."""
    objective = {"rkd_distance": {"weight": 1.0}, "hidden_emd": {"weight": 0.0}}
    augmentation = {"mixup": {"share": 0.5, "alpha": 0.4}, "cutoff": None, "replacement": None}
    text = render_card(with_recipe(objective=objective, data={"augmentation": augmentation}), Path("runs/x/student"))
    cited = re.findall(r"eprint  = \{(.*?)\}", section(text, "Citation"))
    assert cited == ["1503.02531", "1910.01108", "2002.10957", "1904.05068", "2011.00593"]
    assert "title   = {Relational Knowledge Distillation}" in text


@pytest.mark.parametrize("task", ["mrpc", "sst2", "stsb", "mlm"])
def test_the_snippet_runs(tmp_path, task, capsys):
    """Prevents a card whose first example fails for whoever copies it."""
    model = tiny.mlm_model(2) if task == "mlm" else tiny.classifier(2, num_labels=1 if task == "stsb" else 2)
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    text = render_card({**example(labels=None), "task": task}, tmp_path)
    snippet = re.search(r"```python\n(.*?)```", text, re.S)[1].replace("path/to/student", str(tmp_path))
    exec(compile(snippet, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "score" in printed
    assert isinstance(transformers.AutoConfig.from_pretrained(tmp_path), transformers.BertConfig)


def test_a_run_is_not_changed_by_its_card(tmp_path):
    """Prevents a card that edits the results it is made of."""
    results = example()
    before = json.dumps(results)
    (tmp_path / "student").mkdir()
    write_card(results, tmp_path / "student")
    assert json.dumps(results) == before
    assert [path.name for path in (tmp_path / "student").iterdir()] == ["README.md"]


def test_a_student_that_taught_itself_is_not_distilled_from_the_named_model():
    """Prevents a card that names a teacher that taught nothing."""
    text = str(card(with_recipe(teacher={"self": {"kind": "ema", "decay": 0.99}})))
    assert "that taught itself on" in text
    assert re.search(r"The reference is .*; it did not teach\.", text)
    assert "distilled from" not in text
    assert "It was its own teacher" in text
    assert "the teacher’s errors" not in text
    assert "of the teacher’s" not in text.partition("## How it was distilled")[0]
