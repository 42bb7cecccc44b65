"""Fidelity: agreement, divergence, calibration and CKA against plain forwards and naive formulas."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers
from datasets import Dataset

from distil_nlp.data import MaskingCollator, TaskCollator
from distil_nlp.evaluation.fidelity import agreement, compare_models, expected_calibration_error, linear_cka
from distil_nlp.evaluation.predict import predict
from distil_nlp.models import build_student
from tests.helpers import tiny, training

PAIRS = {
    "Bert": ("Bert", {}),
    "DistilBert": ("Bert", {}),
    "Roberta": ("Roberta", {}),
    "Electra": ("Electra", {"embedding_size": 16}),
    "Albert": ("Albert", {"embedding_size": 16}),
    "ModernBert": ("ModernBert", {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}),
}
"""Student family → teacher family, and what their configurations need besides."""


def of_family(family, num_layers, head="MaskedLM", width=32, **changes):
    sizes = {"vocab_size": len(tiny.VOCABULARY), "num_hidden_layers": num_layers, "pad_token_id": 0}
    sizes |= {"num_attention_heads": 4, "initializer_range": 0.2}
    distil = {"dim": width, "hidden_dim": 64}
    sizes |= distil if family == "DistilBert" else {"hidden_size": width, "intermediate_size": 64}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(num_layers)
        config = getattr(transformers, f"{family}Config")(**sizes, **changes)
        return getattr(transformers, f"{family}For{head}")(config).eval()


def pair(family, head="MaskedLM"):
    """A teacher of four layers, and a narrower student of two."""
    teacher, changes = PAIRS[family]
    return of_family(teacher, 4, head, **changes), of_family(family, 2, head, width=16, **changes)


def collator(kind):
    return MaskingCollator(tiny.tokenizer()) if kind == "mlm" else TaskCollator(tiny.tokenizer(), kind)


def plain(model, row, kind):
    """A row by itself through the plain model: masked or pooled logits (rows, classes), and all hidden states."""
    batch = collator(kind)([row])
    labels = batch.pop("labels")
    if model.config.model_type in ("distilbert", "modernbert"):
        batch.pop("token_type_ids")
    with torch.no_grad():
        output = model(**batch, output_hidden_states=True)
    logits = output.logits[labels != -100] if kind == "mlm" else output.logits
    return logits, [state[0] for state in output.hidden_states]


def naive_kl(theirs, ours):
    p, q = theirs.double().softmax(-1), ours.double().softmax(-1)
    return float((p * (p / q).log()).sum(-1).mean())


# Against plain forwards, one row at a time ----------------------------------------------------------------------


@pytest.mark.parametrize("family", PAIRS)
@pytest.mark.parametrize("kind", ["mlm", "classification"])
def test_figures_are_those_of_plain_forwards(family, kind):
    """Prevents padding in CKA, layers out of order, tokens of another row set, columns that do not reach a model."""
    teacher, student = pair(family, "MaskedLM" if kind == "mlm" else "SequenceClassification")
    rows = training.text_rows(10) if kind == "mlm" else training.task_rows(10)
    found = compare_models(teacher, student, kind, rows, collator(kind), batch_size=4)
    logits, hidden = [], []
    for model in (teacher, student):
        seen = [plain(model, row, kind) for row in rows]
        logits.append(torch.cat([one for one, _ in seen]))
        hidden.append([torch.cat(states) for states in zip(*(states for _, states in seen), strict=True)])
    equal = (logits[0].argmax(-1) == logits[1].argmax(-1)).double().mean()
    assert found["agreement"] == pytest.approx(float(equal))
    assert found["kl"] == pytest.approx(naive_kl(*logits), rel=1e-4)
    assert found["rows"] == 10
    if kind == "mlm":
        assert found["tokens"] == len(logits[0])
    cka = found["cka"]
    assert cka["teacher_layers"] == ["embeddings", 0, 1, 2, 3]
    assert cka["student_layers"] == ["embeddings", 0, 1]
    assert cka["tokens"] == len(hidden[0][0]) == sum(len(row["input_ids"]) for row in rows)
    expected = [[float(linear_cka(ours, theirs)) for theirs in hidden[0]] for ours in hidden[1]]
    np.testing.assert_allclose(cka["values"], expected, atol=2e-4)


def test_regression_compares_outputs():
    """Prevents a correlation with the labels in place of the teacher."""
    teacher, student = tiny.classifier(3, num_labels=1), tiny.classifier(2, num_labels=1, seed=1)
    rows = [row | {"labels": float(i)} for i, row in enumerate(training.task_rows(12))]
    found = compare_models(teacher, student, "regression", rows, collator("regression"), batch_size=5)
    theirs, ours = (
        np.array([float(plain(model, row, "regression")[0]) for row in rows]) for model in (teacher, student)
    )
    assert found["pearson"] == pytest.approx(np.corrcoef(theirs, ours)[0, 1], abs=1e-4)
    assert found["mean_absolute_difference"] == pytest.approx(np.abs(theirs - ours).mean(), rel=1e-4)
    assert set(found) == {"rows", "pearson", "mean_absolute_difference", "cka"}


def test_a_constant_output_has_no_correlation():
    """Prevents a warning and NaN, or 0, which would look like a score."""
    teacher, student = tiny.classifier(2, num_labels=1), tiny.classifier(1, num_labels=1)
    torch.nn.init.zeros_(student.classifier.weight)
    found = compare_models(teacher, student, "regression", training.task_rows(6), collator("regression"))
    assert found["pearson"] is None
    assert found["mean_absolute_difference"] > 0


@pytest.mark.parametrize("kind", ["mlm", "classification", "regression"])
def test_a_model_agrees_with_itself(kind):
    """Prevents figures that are off at equality: randomness of training mode, or one side's own masks."""
    build = {
        "mlm": lambda: tiny.mlm_model(2, hidden_dropout_prob=0.5),
        "classification": lambda: tiny.classifier(2, hidden_dropout_prob=0.5),
        "regression": lambda: tiny.classifier(2, num_labels=1, hidden_dropout_prob=0.5),
    }[kind]
    rows = training.text_rows() if kind == "mlm" else training.task_rows()
    found = compare_models(build(), build().train(), kind, rows, collator(kind))
    if kind == "regression":
        assert found["pearson"] == pytest.approx(1)
        assert found["mean_absolute_difference"] == 0
    else:
        assert found["agreement"] == 1
        assert found["kl"] == 0
    assert np.diag(found["cka"]["values"]) == pytest.approx(1, abs=1e-3)
    assert json.loads(json.dumps(found)) == found


def test_copied_layers_are_alike_on_the_diagonal():
    """Prevents a table that is transposed or shifted by the embeddings."""
    teacher = of_family("Bert", 6, hidden_dropout_prob=0.0)
    student, _ = build_student(teacher, [0, 1, 2], num_layers=3)
    cka = compare_models(teacher, student, "mlm", training.text_rows(), collator("mlm"))["cka"]
    assert np.diag(cka["values"]) == pytest.approx(1, abs=1e-3)
    assert np.array(cka["values"]).shape == (4, 7)
    assert max(cka["values"][i][j] for i in range(4) for j in range(7) if i != j) < 0.999


# Labels ---------------------------------------------------------------------------------------------------------


def test_confusion_and_calibration_take_labelled_rows():
    """Prevents swapped sides, a missing row for a class that never occurs, and −100 taken as a class."""
    teacher, student = tiny.classifier(3, num_labels=3, seed=3), tiny.classifier(1, num_labels=3)
    rows = training.task_rows(18, num_labels=2)
    for row in rows[:6]:
        row["labels"] = -100
    found = compare_models(teacher, student, "classification", rows, collator("classification"), batch_size=5)
    for name, model in (("teacher", teacher), ("student", student)):
        logits = torch.cat([plain(model, row, "classification")[0] for row in rows[6:]])
        expected = np.zeros((3, 3), dtype=int)
        for row, predicted in zip(rows[6:], logits.argmax(-1).tolist(), strict=True):
            expected[row["labels"], predicted] += 1
        assert found["confusion"][name] == expected.tolist()
        labels = np.array([row["labels"] for row in rows[6:]])
        ece = expected_calibration_error(logits.softmax(-1).numpy(), labels)
        assert found["ece"][name] == pytest.approx(ece, abs=1e-4)
        assert found["nll"][name] == pytest.approx(F.cross_entropy(logits, torch.from_numpy(labels)).item(), abs=1e-4)
    assert found["rows"] == 18


@pytest.mark.parametrize("unlabelled", [{"labels": -100}, None])
def test_without_labels_the_rest_is_there(unlabelled):
    """Prevents a failure on rows that nobody labelled."""
    rows = training.task_rows(6)
    rows = [row | unlabelled if unlabelled else {k: v for k, v in row.items() if k != "labels"} for row in rows]
    found = compare_models(tiny.classifier(2), tiny.classifier(1), "classification", rows, collator("classification"))
    assert set(found) == {"rows", "agreement", "kl", "cka"}


def test_calibration_error_by_hand():
    """Prevents bins weighed alike, signed gaps that cancel, and edges that fall into the wrong bin."""
    probabilities = np.array([[0.9, 0.1], [0.08, 0.92], [0.45, 0.55], [0.6, 0.4], [0.0, 1.0]])
    labels = np.array([0, 0, 1, 1, 1])
    # (0.867, 0.933]: one of two right, 0.91 sure; (0.533, 0.6]: one of two, 0.575; (0.933, 1]: right and sure
    expected = 2 / 5 * abs(0.5 - 0.91) + 2 / 5 * abs(0.5 - 0.575)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)
    assert expected_calibration_error(probabilities, labels, bins=1) == pytest.approx(abs(3 / 5 - 3.97 / 5))


# Which rows -----------------------------------------------------------------------------------------------------


def test_rows_and_tokens_come_from_the_whole_set(monkeypatch):
    """Prevents figures of the first rows alone, of sorted sets of one class."""
    rows = Dataset.from_list(sorted(training.task_rows(24), key=lambda row: row["labels"]))
    sampled, observe = [], agreement.forward_with_signals

    def seen(model, inputs, row_sets):
        if "sampled" in row_sets:
            sampled.append(len(row_sets["sampled"]))
        return observe(model, inputs, row_sets)

    monkeypatch.setattr(agreement, "forward_with_signals", seen)
    both = tiny.classifier(2), tiny.classifier(1)
    options = {"batch_size": 2, "max_rows": 8, "cka_tokens": 64}
    found = compare_models(*both, "classification", rows, collator("classification"), **options)
    assert found["rows"] == 8
    assert [sum(line) for line in found["confusion"]["teacher"]] == [4, 4]
    assert found["cka"]["tokens"] == 64
    assert sampled[::2] == sampled[1::2]
    assert sum(sampled[::2]) == 64
    assert min(sampled) > 0
    assert compare_models(*both, "classification", rows, collator("classification"), **options) == found


@pytest.mark.parametrize(("rows", "compared"), [(6, 6), (40, 16)])
def test_layers_are_compared_on_few_rows(rows, compared):
    """Prevents minutes of forwards for 2048 tokens, rows of the beginning alone, and other figures for small sets."""
    both = pair("Bert", "SequenceClassification")
    rows = training.task_rows(rows)
    options = {"batch_size": 4, "max_rows": 40}
    found = compare_models(*both, "classification", rows, collator("classification"), cka_rows=16, **options)
    spread = [rows[i * len(rows) // compared] for i in range(compared)]
    assert found["rows"] == len(rows)
    assert found["cka"]["tokens"] == sum(len(row["input_ids"]) for row in spread)
    assert found["cka"] == compare_models(*both, "classification", spread, collator("classification"), **options)["cka"]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_outputs_that_are_there_are_not_computed_again(monkeypatch, kind):
    """Prevents a second pass of both models over all rows, and figures of other rows than were scored."""
    rows = training.task_rows(12)
    if kind == "regression":
        rows = [row | {"labels": float(i)} for i, row in enumerate(rows)]
    both = [tiny.classifier(n, num_labels=1 if kind == "regression" else 3, seed=n) for n in (2, 1)]
    outputs = tuple(predict(model, kind, {"all": rows}, collator(kind))["all"] for model in both)
    expected = compare_models(*both, kind, rows, collator(kind))
    passes, forward = [], transformers.BertForSequenceClassification.forward
    monkeypatch.setattr(
        transformers.BertForSequenceClassification,
        "forward",
        lambda self, input_ids, **inputs: passes.append(len(input_ids)) or forward(self, input_ids, **inputs),
    )
    monkeypatch.setattr(agreement._Comparison, "of_layers", lambda *_: {})
    found = compare_models(*both, kind, rows, collator(kind), outputs=outputs, max_rows=4)
    assert passes == []
    assert set(expected) - set(found) == {"cka"}
    assert found.get("confusion") == expected.get("confusion")
    numbers = {key: value for key, value in found.items() if isinstance(value, float | int)}
    assert len(numbers) == 3
    assert numbers == {key: pytest.approx(expected[key], rel=1e-4) for key in numbers}


def test_too_few_tokens_have_no_cka():
    """Prevents a division by zero at the end of a run over a handful of tokens."""
    rows = [{"input_ids": [2, 7, 3], "attention_mask": [1, 1, 1], "labels": 0}]
    found = compare_models(tiny.classifier(2), tiny.classifier(1), "classification", rows, collator("classification"))
    assert "cka" not in found


# What is left behind --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_models_stay_as_they_are(fails):
    """Prevents hooks, a changed mode or other random numbers after a comparison, also after one that fails."""
    teacher, student = tiny.mlm_model(2), tiny.mlm_model(1, max_position_embeddings=8 if fails else 64).train()
    state = torch.get_rng_state()
    if fails:
        with pytest.raises((RuntimeError, IndexError)):
            compare_models(teacher, student, "mlm", training.text_rows(), collator("mlm"))
    else:
        compare_models(teacher, student, "mlm", training.text_rows(), collator("mlm"))
    assert student.training
    assert not teacher.training
    assert torch.equal(state, torch.get_rng_state())
    for model in (teacher, student):
        assert not [one for one in model.modules() if one._forward_hooks or one._forward_pre_hooks]


def test_bfloat16_runs_as_scoring_does():
    """Prevents a crash on a bfloat16 teacher at the end of a run on a GPU, and float32 figures under its name."""
    rows, student = training.text_rows(), tiny.mlm_model(2)
    found = compare_models(tiny.mlm_model(2).bfloat16(), student, "mlm", rows, collator("mlm"), bf16=True)
    assert found["kl"] == pytest.approx(0, abs=1e-3)
    assert np.diag(found["cka"]["values"]) == pytest.approx(1, abs=0.01)
    exact, rounded = (
        compare_models(tiny.mlm_model(3), student, "mlm", rows, collator("mlm"), bf16=on) for on in (False, True)
    )
    assert exact["kl"] != rounded["kl"]
    assert exact["kl"] == pytest.approx(rounded["kl"], rel=0.1)


# CKA ------------------------------------------------------------------------------------------------------------


def draw(rows, width, seed):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def naive_cka(x, y):
    """Song et al. 2012, equation 5, in float64."""

    def hsic(k, m):
        n, ones = len(k), np.ones(len(k))
        cross = ones @ k @ ones * (ones @ m @ ones) / ((n - 1) * (n - 2))
        return (np.trace(k @ m) + cross - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))

    k, m = (one.double().numpy() @ one.double().numpy().T for one in (x, y))
    for gram in (k, m):
        np.fill_diagonal(gram, 0)
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("rows", [4, 5, 30])
def test_cka_is_the_papers_formula(rows):
    """Prevents a wrong constant of U-centring, or a diagonal that is not left out."""
    x, y = draw(rows, 7, 0) + 3, draw(rows, 4, 1)
    y[:, :3] += x[:, :3]
    assert float(linear_cka(x, y)) == pytest.approx(naive_cka(x, y), abs=1e-4)


def test_cka_knows_no_rotation_scale_or_shift():
    """Prevents a measure that depends on how a layer's axes happen to lie, or breaks on large means."""
    x, y = draw(50, 12, 0), draw(50, 12, 0) + draw(50, 12, 1)
    rotation, _ = torch.linalg.qr(draw(12, 12, 2))
    assert float(linear_cka(x, x)) == pytest.approx(1, abs=1e-5)
    assert float(linear_cka(x, 1e-3 * x @ rotation + 5)) == pytest.approx(1, abs=1e-3)
    assert float(linear_cka(1e3 * x @ rotation - 7, y)) == pytest.approx(float(linear_cka(x, y)), abs=1e-4)
    assert 0.2 < float(linear_cka(x, y)) < 0.8


def test_cka_of_unrelated_layers_is_near_zero_with_few_tokens():
    """Prevents the bias of the plain estimator, which finds 0.8 here."""
    values = [float(linear_cka(draw(64, 256, seed), draw(64, 256, seed + 100))) for seed in range(8)]
    assert abs(np.mean(values)) < 0.02
    assert max(map(abs, values)) < 0.1


@pytest.mark.parametrize(("left", "right"), [(5, 6), (3, 3)])
def test_cka_needs_the_same_rows(left, right):
    """Prevents a broadcast, or a division by zero."""
    with pytest.raises(ValueError, match=f"got {left} and {right}"):
        linear_cka(draw(left, 2, 0), draw(right, 2, 0))
