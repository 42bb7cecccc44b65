"""What every term of the table keeps to, whatever it matches."""

import itertools
import re

import pytest
import torch

from distil_nlp.data.row_sets import FILLER
from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import OutputTerm
from distil_nlp.objective.objective import Objective
from distil_nlp.objective.schedule import Schedule
from tests.helpers import ROOT, tiny
from tests.helpers.dropout import fix_dropout
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.sentences import sentence_encoder
from tests.helpers.training import label_set, ranked_rows, span_rows, task_rows, text_rows, token_rows, trainer

CASES = [(name, term.kinds()[i % len(term.kinds())]) for i, (name, term) in enumerate(TERMS.items())]
CASES += [(name, "multilabel") for name, term in TERMS.items() if "labels" in term.formulas or name == "logit_mse"]
CASES += [(name, "ranking") for name in ("hard_label", "logit_mse")]
CASES += [(name, "qa") for name, term in TERMS.items() if "spans" in term.outputs and issubclass(term, OutputTerm)]
CASES = [*dict.fromkeys(CASES)]
"""Each term on one of its kinds of task, those with a form for labels or scores on these too; the two processes below
take all kinds."""
OF_BATCHES = [case for case in CASES if TERMS[case[0]].compares_samples]
OPTIONS = {"bounded_regression": {"margin": 10.0}}
"""Without a margin it is 0 where the student happens to be better."""
KINDS = ("mlm", "classification", "multilabel", "regression", "ranking", "tokens", "qa", "embedding")
LIVELY = {"initializer_range": 0.3}
"""Else all [CLS] states of a random model are nearly alike, and what compares them sees rounding."""
ROWS = 8
STEPS = {"all": (8, 4, 1), "compared": (7, 2, 2), "passes": (8, 2, 2)}
"""Of two processes: rows, those of a micro-batch of each, micro-batches; all terms that read a row once, those that
compare rows, or those that compare passes with others that see both."""


def a(name):
    """The term, of weight 1."""
    return TERMS[name](1.0, **OPTIONS.get(name, {}))


def models(kind, terms=()):
    """(student, teacher); the student drops out where a term compares passes."""
    if kind == "mlm":
        student, teacher = tiny.mlm_model(2, seed=1, **LIVELY), tiny.mlm_model(4, **LIVELY)
    elif kind == "tokens":
        student, teacher = tiny.tagger(2, seed=1, **LIVELY), tiny.tagger(4, **LIVELY)
    elif kind == "embedding":
        student, teacher = sentence_encoder(2, 1, **LIVELY), sentence_encoder(4, **LIVELY)
    elif kind == "qa":
        student, teacher = tiny.reader(2, seed=1, **LIVELY), tiny.reader(4, **LIVELY)
    else:
        labels = 1 if kind in ("regression", "ranking") else 3
        student, teacher = tiny.classifier(2, labels, seed=1, **LIVELY), tiny.classifier(4, labels, **LIVELY)
    if any(term.compares_passes for term in terms):
        fix_dropout(student)
    return student, teacher


def data(kind, count=ROWS):
    if kind == "tokens":
        return token_rows(count)
    if kind == "ranking":
        return ranked_rows(count + count % 2)  # whole queries, which any size of batch has in one order
    if kind == "qa":
        return span_rows(count)
    rows = text_rows(count) if kind in ("mlm", "embedding") else task_rows(count, 3)
    if kind == "regression":
        for row in rows:
            row["labels"] = 0.3 * row["labels"]
    if kind == "multilabel":
        for i, row in enumerate(rows):
            row["labels"] = label_set(i)
    return rows


def gradient(folder, terms, kind, batch=ROWS, accumulation=1, rows=None, **further):
    """Of one step of the trainer at learning rate 0, and the values that it logs."""
    steps = Steps()
    arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    arguments |= {"learning_rate": 0.0, "max_grad_norm": 0, **further}
    run = trainer(
        folder, *models(kind, terms), terms, kind=kind, rows=rows or data(kind), callbacks=[steps], **arguments
    )
    steps.watch(run)
    run.train()
    return steps.gradients[0], run.last_terms, steps.batches[0]


@pytest.mark.integration
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_term_is_divided_once_whatever_the_micro_batches(tmp_path, name, kind):
    """Prevents means of means; what depends on the micro-batch is the mean over them, as it says."""
    whole, values, _ = gradient(tmp_path, [a(name)], kind)
    parts, of_parts, _ = gradient(tmp_path, [a(name)], kind, 2, 4)
    assert torch.isfinite(torch.tensor(list(values.values()))).all()
    assert any(one.abs().max() > 0 for one in whole.values())
    if (name, kind) in OF_BATCHES:
        assert distance(parts, whole) > 1e-4
    else:
        assert distance(parts, whole) < 1e-5
        assert of_parts == pytest.approx(values, rel=1e-5)


@pytest.mark.parametrize(("name", "kind"), OF_BATCHES)
def test_what_is_one_value_a_micro_batch_is_the_mean_over_them(tmp_path, name, kind):
    """Prevents a loss that grows with the number of micro-batches, or counts one that has a single row."""
    rows = data(kind, 9)
    together, _, batches = gradient(tmp_path, [a(name)], kind, 4, 3, rows=rows)
    alone = []
    for batch in batches:
        run = trainer(tmp_path, *models(kind), [a(name)], kind=kind)
        run.model.train()
        if batch["rows"]["batch"].numel():
            run.compute_loss(run.model, batch).backward()
            alone.append({n: p.grad for n, p in run.model.named_parameters() if p.grad is not None})
    assert [batch["rows"]["batch"].numel() for batch in batches] == [1, 1, int(len(rows) > 9)]
    assert len(alone) == (3 if len(rows) > 9 else 2)
    mean = {n: sum(one[n] for one in alone) / len(alone) for n in alone[0]}
    assert distance(together, {n: one.double() for n, one in mean.items()}) < 1e-5


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_padding_is_not_seen(tmp_path, name, kind):
    """Prevents a loss that changes with the longest row of the batch, or learns from one that only fills it up."""
    terms = [a(name)]
    run, found = trainer(tmp_path, *models(kind, terms), terms, kind=kind), []
    run.model.train(terms[0].compares_passes)
    rows = data(kind, 4)
    longest = max(rows, key=_length)
    filler = {key: one * 2 if isinstance(one, list) and key != "labels" else one for key, one in longest.items()}
    for batch in (rows, [*rows, filler | {FILLER: True}]):
        batch = run.data_collator(batch)
        run.model.zero_grad()
        loss = run.compute_loss(run.model, batch)
        loss.backward()
        grads = {n: p.grad.double() for n, p in run.model.named_parameters() if p.grad is not None}
        found.append((batch["input_ids"].shape[1], loss.item(), grads))
    (short, loss, grads), (long, same, padded) = found
    assert long > short
    assert same == pytest.approx(loss, rel=1e-4, abs=1e-7)
    assert distance(padded, grads) < 1e-4


@pytest.mark.integration
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_autocast_in_bf16_is_near(tmp_path, name, kind):
    """Prevents arithmetic in half precision, and operators that refuse it."""
    whole, values, _ = gradient(tmp_path, [a(name)], kind)
    half, of_half, _ = gradient(tmp_path, [a(name)], kind, bf16=True)
    assert of_half == pytest.approx(values, rel=0.1, abs=0.02)
    assert distance(half, whole) < 0.35


@pytest.mark.parametrize("name", TERMS)
def test_a_term_of_weight_zero_is_not_there(name):
    """Prevents a switched-off term that still asks for signals."""
    kind = TERMS[name].kinds()[0]
    other = next(one for one, term in TERMS.items() if one != name and term.applies_to(kind))
    assert Objective([TERMS[name](0.0), TERMS[other](1.0)], kind).names == [other]
    assert Objective([TERMS[name](Schedule(0.0, 1.0, "linear"))], kind).names == [name]


def test_every_term_tells_what_it_is():
    """Prevents a model card with holes, and a term that nobody documented."""
    told = (ROOT / "docs" / "recipes.md").read_text()
    for name, term in TERMS.items():
        assert term.name == name
        assert term.formula
        assert term.unit
        assert f"`{name}`" in term.__doc__
        assert f"| `{name}` |" in told


def test_the_docs_name_the_terms_that_compare_rows():
    """Prevents a term that depends on the size of a micro-batch without saying so."""
    told = (ROOT / "docs" / "recipes.md").read_text().replace("\n", " ")
    sentence = re.search(r"a sequence\. ([^.]*) compare the rows of a micro-batch", told).group(1)
    assert set(re.findall(r"`(\w+)`", sentence)) == {name for name, term in TERMS.items() if term.compares_samples}


@pytest.mark.integration
def test_two_processes_are_one_of_twice_the_rows(tmp_path):
    """Prevents a term that is reduced in another way than the others, and rows that are compared within a process only:
    DDP, all terms of a kind of task at once, those that compare rows also where the last micro-batch is a row short."""
    (tmp_path / "two").mkdir()
    forked_pair("-m", "tests.workers.terms", str(tmp_path / "two"))
    for kind, (name, (rows, batch, accumulation)) in itertools.product(KINDS, STEPS.items()):
        found = torch.load(tmp_path / "two" / f"{kind}-{name}.pt", weights_only=True)
        terms = terms_of(kind, name)
        one, values, _ = gradient(tmp_path / "one", terms, kind, 2 * batch, accumulation, rows=data(kind, rows))
        assert found["wrapper"] == "DistributedDataParallel"
        assert found["values"] == pytest.approx(values, rel=1e-4, abs=1e-7)
        assert distance(found["gradient"], one) < 1e-4


def _length(row):
    return len(row["input_ids"])


def terms_of(kind, which):
    fitting = {
        "all": lambda term: not term.compares_passes,
        "compared": lambda term: term.compares_samples,
        "passes": lambda term: not (term.compares_samples or term.samples_text),
    }[which]
    return [a(name) for name, term in TERMS.items() if kind in term.kinds() and fitting(term)]
