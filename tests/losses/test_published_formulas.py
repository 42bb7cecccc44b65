"""TinyBERT's, MiniLMv2's and Patient KD's formulas, worked out by hand on two tokens, and what terms and recipes make
of the same numbers. To be read with the papers beside it."""

import math
from math import exp, log

import pytest
import torch
from torch import Tensor

from distil_nlp.losses.registry import TERMS
from distil_nlp.objective import ModelShape
from distil_nlp.pipeline import builders as build
from distil_nlp.recipe import load_recipe
from distil_nlp.signals.attention import QueriesKeys
from distil_nlp.signals.types import EMBEDDINGS, Signals
from tests.helpers import ROOT

RECIPES = ROOT / "recipes"
TWO_TOKENS = {
    "input_ids": torch.zeros(1, 2, dtype=torch.long),
    "labels": torch.tensor([0]),
    "rows": {
        "all": torch.tensor([0, 1]),
        **dict.fromkeys(("cls", "sequences", "labelled", "logits/sequences", "logits/labelled"), torch.tensor([0])),
    },
}
"""One sequence of the class 0, without padding."""


def value(name, student, teacher, shapes, batch=TWO_TOKENS, **options):
    """A term's value of one step: its sum ÷ its rows, as the trainer has it."""
    term = TERMS[name](**options)
    term.bind("classification", *shapes)
    return term.sum(student, teacher, batch, 0.0).item() / batch["rows"][term.counted_rows()].numel()


def total(recipe, student, teacher, shapes, overrides=()):
    """The loss of one step with a shipped recipe's terms and weights."""
    recipe = load_recipe(RECIPES / f"{recipe}.yaml", list(overrides))
    objective = build.objective_from(recipe, build.task_of(recipe).kind)
    objective.bind(*shapes)
    counts = torch.tensor(objective.counts(TWO_TOKENS["rows"]))
    loss, _ = objective.loss(student, teacher, TWO_TOKENS, 0.0, objective.row_weights(0.0, counts))
    return loss.item()


def kl(p, q):
    return sum(a * log(a / b) for a, b in zip(p, q, strict=True))


def heads(*states: list[list[float]]) -> Tensor:
    """(1, heads, tokens, width) of a list of tokens for each head."""
    return torch.tensor([states], dtype=torch.float32)


# TinyBERT, arXiv:1909.10351 ----------------------------------------------------------------------------------

STUDENT = (
    heads([[2, 0, 0, 0], [0, 2, 0, 0]], [[2, 2, 0, 0], [0, 0, 2, 0]]),
    heads([[1, 0, 0, 0], [0, 3, 0, 0]], [[1, 1, 0, 0], [1, 0, 2, 0]]),
)
TEACHER = (
    heads([[4, 0, 0, 0], [2, 3, 0, 0]], [[4, 4, 0, 0], [-4, 4, 0, 0]]),
    heads([[1, 0, 0, 0], [0, 2, 0, 0]], [[1, 0, 0, 0], [0, 1, 0, 0]]),
)
"""Queries and keys. √d_k = 2, so A = Q Kᵀ / 2 is, head by head:
student  [[1, 0], [0, 3]]  [[2, 1], [0, 2]]
teacher  [[2, 0], [1, 3]]  [[2, 2], [−2, 2]]
"""
OF_HEADS = [(1 + 0 + 1 + 0) / 4, (0 + 1 + 4 + 0) / 4]
"""MSE(A_i^S, A_i^T)."""


def test_tinyberts_attention_loss():
    """Equation 7: (1 / h) Σ_i MSE(A_i^S, A_i^T) of scores before the softmax. Prevents a sum over keys or heads."""
    student, teacher = (Signals(attention={0: QueriesKeys(*one, 4**-0.5)}) for one in (STUDENT, TEACHER))
    found = value("attention_scores_mse", student, teacher, [ModelShape(1, 8, 2)] * 2)
    assert found == pytest.approx(sum(OF_HEADS) / 2)
    assert found == pytest.approx(7 / 8)


def test_tinyberts_attention_loss_of_padded_sequences():
    """The authors' mean is over all l × l scores, those of padding counting as equal: on 2 of 4 tokens a quarter of
    ours, which is the same however far a batch is padded."""

    def padded(states):
        return torch.cat([states, torch.zeros_like(states)], dim=2)

    mask = torch.tensor([True, True, False, False]).view(1, 1, 1, 4)
    student, teacher = (
        Signals(attention={0: QueriesKeys(padded(query), padded(key), 4**-0.5, mask)})
        for query, key in (STUDENT, TEACHER)
    )
    batch = {**TWO_TOKENS, "input_ids": torch.zeros(1, 4, dtype=torch.long)}
    found = value("attention_scores_mse", student, teacher, [ModelShape(1, 8, 2)] * 2, batch)
    of_all = [(1 + 1 + 14 * 0) / 16, (1 + 4 + 14 * 0) / 16]
    assert found == pytest.approx(7 / 8)
    assert found / 4 == pytest.approx(sum(of_all) / 2)


def test_tinyberts_hidden_loss():
    """Equation 8: MSE(H^S W_h, H^T). Prevents a sum over the width, and a projection on the teacher's side."""
    hidden_s, hidden_t = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0, 4.0], [3.0, 1.0, 1.0]])
    w_h = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 1.0]])
    by_hand = ((1 - 1) ** 2 + (2 - 0) ** 2 + (4 - 4) ** 2 + (0 - 3) ** 2 + (1 - 1) ** 2 + (1 - 1) ** 2) / 6
    shapes, term = (ModelShape(1, 3, 1), ModelShape(1, 2, 1)), TERMS["hidden_mse"]()
    term.bind("classification", *shapes)
    ((name, (_, project)),) = term.projections().items()
    with torch.no_grad():
        project.weight.copy_(w_h.T)
        project.bias.zero_()  # which the paper has not, and the authors' code has
    student = Signals(projected={name: project(hidden_s)})
    assert value("hidden_mse", student, Signals(hidden={(0, "all"): hidden_t}), shapes) == pytest.approx(by_hand)
    assert by_hand == pytest.approx(13 / 6)


def test_tinyberts_embedding_loss():
    """Equation 9: MSE(E^S W_e, E^T), of equal widths, with W_e the identity: no term has a map there, while
    the authors' code learns one, shared with the hidden states."""
    student = Signals(hidden={(EMBEDDINGS, "all"): torch.tensor([[1.0, 2.0], [0.0, -1.0]])})
    teacher = Signals(hidden={(EMBEDDINGS, "all"): torch.tensor([[1.0, 0.0], [2.0, -1.0]])})
    found = value("hidden_mse", student, teacher, [ModelShape(1, 2, 1)] * 2, layers=[["embeddings", "embeddings"]])
    assert found == pytest.approx((0 + 4 + 4 + 0) / 4)


@pytest.mark.parametrize("t", [1.0, 2.0])
def test_tinyberts_prediction_loss(t):
    """Equation 10: CE(z^T / t, z^S / t). Ours has a factor t², which is 1 in the paper's runs; `soft_target_kl` lies
    lower by the entropy of the teacher's output, and has the same gradient."""
    teacher, student = torch.tensor([[t * log(3), 0.0]]), torch.tensor([[0.0, t * log(4)]])  # (3/4, 1/4), (1/5, 4/5)
    cross_entropy = -(3 / 4 * log(1 / 5) + 1 / 4 * log(4 / 5))
    entropy = -(3 / 4 * log(3 / 4) + 1 / 4 * log(1 / 4))
    both, shapes = (Signals(logits=student), Signals(logits=teacher)), [ModelShape(1, 2, 1, num_labels=2)] * 2
    assert value("soft_target_cross_entropy", *both, shapes, temperature=t) == pytest.approx(t**2 * cross_entropy)
    found = value("soft_target_kl", *both, shapes, temperature=t)
    assert found == pytest.approx(t**2 * (cross_entropy - entropy))
    if t == 1:
        prediction = total("tinybert_task_prediction", *both, shapes)
        assert prediction + entropy == pytest.approx(cross_entropy)


@pytest.mark.parametrize("recipe", ["tinybert_general", "tinybert_task"])
def test_tinyberts_recipes_add_up_layers(recipe):
    """Equations 6 and 11 with λ = 1: L_embd + Σ_m (L_hidn + L_attn) over six layers. Prevents weights that leave it a
    mean over layers."""
    student, teacher = Signals(), Signals()
    student.hidden[EMBEDDINGS, "all"] = torch.full((2, 4), 0.5)
    teacher.hidden[EMBEDDINGS, "all"] = torch.zeros(2, 4)
    for m in range(1, 7):  # counted from 1, as in the paper: g(m) = 2m
        ours, theirs = m - 1, 2 * m - 1
        student.hidden[ours, "all"] = torch.full((2, 4), float(m))
        teacher.hidden[theirs, "all"] = torch.zeros(2, 4)
        query, nothing = torch.ones(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)
        student.attention[ours] = QueriesKeys(query, query / (2 * m), 4**-0.5)  # each score 4 · 1/(2m) / 2 = 1/m
        teacher.attention[theirs] = QueriesKeys(nothing, nothing, 4**-0.5)
    embedding = 0.5**2
    hidden = 1 + 4 + 9 + 16 + 25 + 36
    attention = 1 + 1 / 4 + 1 / 9 + 1 / 16 + 1 / 25 + 1 / 36
    found = total(recipe, student, teacher, [ModelShape(12, 4, 1), ModelShape(6, 4, 1)])
    assert found == pytest.approx(embedding + hidden + attention)


# MiniLMv2, arXiv:2012.15828 ----------------------------------------------------------------------------------

NARROW = heads([[1, 2], [0, 1]])
"""Of a student: one head of width 2, cut into two relation heads of d_r = 1, which hold (1, 0) and (2, 1)."""
WIDE = heads([[2, 0], [0, 0]], [[0, 0], [2, 0]], [[2, 0], [2, 0]], [[0, 0], [0, 0]])
"""Of a teacher: four heads of width 2, put together and cut into two of d_r = 4. The first holds the tokens
(2, 0, 0, 0) and (0, 0, 2, 0), the second (2, 0, 0, 0) twice."""
RELATIONS_STUDENT = [
    [[exp(1) / (exp(1) + 1), 1 / (exp(1) + 1)], [1 / 2, 1 / 2]],  # of A Aᵀ / √1 = [[1, 0], [0, 0]]
    [[exp(4) / (exp(4) + exp(2)), exp(2) / (exp(4) + exp(2))],  # [[4, 2], [2, 1]]
     [exp(2) / (exp(2) + exp(1)), exp(1) / (exp(2) + exp(1))]],
]  # fmt: skip
RELATIONS_TEACHER = [
    [[exp(2) / (exp(2) + 1), 1 / (exp(2) + 1)], [1 / (exp(2) + 1), exp(2) / (exp(2) + 1)]],  # [[4, 0], [0, 4]] / √4
    [[1 / 2, 1 / 2], [1 / 2, 1 / 2]],  # [[4, 4], [4, 4]] / √4
]
RELATION_LOSS = sum(kl(RELATIONS_TEACHER[a][t], RELATIONS_STUDENT[a][t]) for a in (0, 1) for t in (0, 1)) / (2 * 2)
"""1 / (A_r |x|) Σ_a Σ_t KL(R^T_{a,t} ‖ R^S_{a,t})."""
UNIFORM_LOSS = sum(kl([1 / 2, 1 / 2], RELATIONS_STUDENT[a][t]) for a in (0, 1) for t in (0, 1)) / (2 * 2)
"""The same for a teacher whose vectors are all 0."""
SHAPES = [ModelShape(12, 8, 4), ModelShape(6, 2, 1)]


@pytest.mark.parametrize("states", ["query", "key", "value"])
def test_minilmv2s_relations(states):
    """Section 3: relations after the heads are put together and cut into A_r. Prevents the models' own heads, swapped
    sides of the KL, the scaling by another width, and one kind of vectors for another."""

    def seen(of, layer):
        other = torch.zeros_like(of)
        found = {name: of if name == states else other for name in ("query", "key", "value")}
        return Signals(attention={layer: QueriesKeys(scaling=1.0, **found)})

    found = value(f"{states}_relation", seen(NARROW, 5), seen(WIDE, 11), SHAPES, relation_heads=2)
    assert found == pytest.approx(RELATION_LOSS, rel=1e-5)


def test_minilmv2s_recipe():
    """L = Σ α_i L_i of queries, keys and values with α = 1. Prevents a weight that forgets one, or a mean of three."""
    student = Signals(attention={5: QueriesKeys(NARROW, NARROW, 1.0, value=NARROW)})
    teacher = Signals(attention={11: QueriesKeys(WIDE, WIDE, 1.0, value=torch.zeros_like(WIDE))})
    cut = [f"objective.{name}_relation.relation_heads=2" for name in ("query", "key", "value")]
    found = total("minilmv2", student, teacher, SHAPES, cut)
    assert found == pytest.approx(RELATION_LOSS + RELATION_LOSS + UNIFORM_LOSS, rel=1e-5)


# Patient KD, arXiv:1908.09355 --------------------------------------------------------------------------------

PATIENT = [
    ((3, 4), (4, 3), (3 / 5 - 4 / 5) ** 2 + (4 / 5 - 3 / 5) ** 2),
    ((1, 0), (0, 7), (1 - 0) ** 2 + (0 - 1) ** 2),
    ((6, 8), (3, 4), 0),
    ((-1, 0), (2, 0), (-1 - 1) ** 2),
    ((0, 2), (3, 4), (0 - 3 / 5) ** 2 + (1 - 4 / 5) ** 2),
]
"""[CLS] of the student's first five layers, of the teacher's, and ‖h^s/‖h^s‖ − h^t/‖h^t‖‖²: 2/25, 2, 0, 4, 2/5."""
SUM = sum(distance for _, _, distance in PATIENT)


def patient(width):
    """Layer by layer, PKD-Skip from 12 layers to 6: every second of the teacher's, without the last."""
    student, teacher = Signals(), Signals()
    for i, (ours, theirs, _) in enumerate(PATIENT):
        filled = [torch.tensor([[*one, *([0] * (width - 2))]], dtype=torch.float32) for one in (ours, theirs)]
        student.hidden[i, "cls"], teacher.hidden[2 * i + 1, "cls"] = filled
    return student, teacher


def test_patient_loss():
    """Equation 7: Σ_j ‖h^s_j/‖h^s_j‖ − h^t_j/‖h^t_j‖‖² over M layers. Ours is the mean over layers, M times smaller."""
    found = value("pkd", *patient(2), [ModelShape(12, 2, 1), ModelShape(6, 2, 1)])
    assert 5 * found == pytest.approx(SUM)


def test_patient_recipe_weighs_as_the_authors_code_does():
    """(1 − α) CE + α T² KL + β L_PT with α = 0.5, T = 10 and β = 100. The published β go with the authors' code, whose
    L_PT is also a mean over layers and over the width of 768, and whose KL is a mean over the two classes. Prevents a
    patient term 768 times too heavy, beside which nothing else is learned."""
    student, teacher = patient(768)
    student.logits, teacher.logits = torch.tensor([[0.0, 10 * log(4)]]), torch.tensor([[10 * log(3), 0.0]])
    cross_entropy = math.log1p(4**10)  # −log softmax of the class 0, whose logit is 10 log 4 below the other's
    divergence = kl([3 / 4, 1 / 4], [1 / 5, 4 / 5]) / 2
    by_hand = 0.5 * cross_entropy + 0.5 * 10**2 * divergence + 100 * SUM / (5 * 768)
    shapes = [ModelShape(12, 768, 12, num_labels=2), ModelShape(6, 768, 12, num_labels=2)]
    assert total("pkd", student, teacher, shapes) == pytest.approx(by_hand, rel=1e-3)
