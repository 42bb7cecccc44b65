"""Terms on attention scores, relations and feed-forward units: the published formulas, in naive float64."""

import math

import pytest
import torch
from torch import Tensor
from transformers import ModernBertConfig, ModernBertForMaskedLM

from distil_nlp.errors import UserError
from distil_nlp.losses.activations import ActivationBoundary, ActivationShare, activation_boundary, activation_share
from distil_nlp.losses.attention_maps import attention_kl
from distil_nlp.losses.attention_scores import AttentionScoresMSE, attention_scores_mse
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.relations import KeyRelation, QueryRelation, ValueRelation, relation
from distil_nlp.models.architecture import feed_forward_units, layer_stack
from distil_nlp.objective import ModelShape
from distil_nlp.signals import attention
from distil_nlp.signals.attention import Probabilities, QueriesKeys, attention_sum
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, forward_with_signals
from distil_nlp.teachers.cache import CacheConfig
from tests.helpers import tiny
from tests.helpers.families import batch, model_of
from tests.helpers.training import curve, task_rows, trainer

NAMES = [
    "attention_scores_mse", "query_relation", "key_relation", "value_relation",
    "activation_boundary", "activation_share",
]  # fmt: skip
SEQ = 6
VISIBLE = torch.tensor([[True] * SEQ, [True] * 4 + [False] * 2])
MASKS = {
    "none": None,
    "bool": VISIBLE[:, None, None],
    "finfo.min": torch.zeros(2, 1, 1, SEQ).masked_fill(~VISIBLE[:, None, None], torch.finfo(torch.float32).min),
    "-inf": torch.zeros(2, 1, 1, SEQ).masked_fill(~VISIBLE[:, None, None], -math.inf),
    "full": VISIBLE[:, None, None].expand(2, 1, SEQ, SEQ),
}
CHOSEN = torch.tensor([[1, 1, 0, 1, 1, 1], [1, 0, 1, 1, 0, 0]])


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen_by(mask: Tensor | None, sequence: int) -> list[int]:
    return [key for key in range(SEQ) if mask is None or VISIBLE[sequence, key]]


def rows() -> list[tuple[int, int]]:
    return [(int(b), int(q)) for b, q in CHOSEN.nonzero()]


def assert_gradients(ours: list[Tensor], exact: list[Tensor]) -> None:
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-6)


# Attention scores --------------------------------------------------------------------------------------------


def naive_scores(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
    """TinyBERT's equation 7, query by query and key by key, over the keys that may be seen."""
    (qs, ks), (qt, kt), total = student, teacher, 0.0
    heads = qs.shape[1]
    for b, q in rows():
        keys = seen_by(mask, b)
        for h in range(heads):
            for k in keys:
                ours = qs[b, h, q] @ ks[b, h, k] / math.sqrt(qs.shape[-1])
                theirs = qt[b, h, q] @ kt[b, h, k] / math.sqrt(qt.shape[-1])
                total = total + (ours - theirs) ** 2 / len(keys) / heads
    return total


@pytest.mark.parametrize("block_bytes", [2**22, 300], ids=["whole", "blocks"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_scores_mse_is_its_definition(mask, block_bytes, monkeypatch):
    """Prevents −inf − −inf = NaN, a mean over padding, and a block that loses a part of the gradient."""
    monkeypatch.setitem(attention._BLOCK_BYTES, "cpu", block_bytes)
    ours = [normal(2, 3, SEQ, 8, seed=i).requires_grad_() for i in (1, 2)]
    theirs = [normal(2, 3, SEQ, 12, seed=i) for i in (3, 4)]
    value = attention_sum(
        attention_scores_mse, QueriesKeys(*ours, 8**-0.5, mask), QueriesKeys(*theirs, 12**-0.5, mask), CHOSEN,
        scores=True,
    )  # fmt: skip
    value.backward()
    exact = [one.detach().double().requires_grad_() for one in ours]
    expected = naive_scores(exact, [one.double() for one in theirs], mask)
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert_gradients(ours, exact)


def test_scores_of_unequal_heads_are_averaged():
    """Prevents a mean that is not of scores, or that padding turns into NaN."""
    ours, theirs = ([normal(2, heads, SEQ, 8, seed=i) for i in (1, 2)] for heads in (3, 4))
    both = [QueriesKeys(*one, 0.5, MASKS["bool"]) for one in (ours, theirs)]
    value = attention_sum(attention_scores_mse, *both, CHOSEN, average=True, scores=True)
    s, t = ((one[0].double() @ one[1].double().mT * 0.5).mean(1) for one in (ours, theirs))
    expected = sum((s[b, q, k] - t[b, q, k]) ** 2 / len(keys)
                   for b, q in rows() for keys in [seen_by(MASKS["bool"], b)] for k in keys)  # fmt: skip
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)


def test_scores_at_equality_and_their_derivative():
    """Prevents a score that a perfect student could not reach, and a gradient that is not the value's."""
    student = normal(1, 2, 3, 3, seed=1).double().requires_grad_()
    student_seen = student.masked_fill(torch.tensor([False, False, True]), -math.inf)
    teacher = normal(1, 2, 3, 3, seed=2).double().masked_fill(torch.tensor([False, False, True]), -math.inf)
    assert attention_scores_mse(student_seen, student_seen.detach(), torch.ones(1, 3)).item() == 0
    hidden = torch.tensor([False, False, True])
    torch.autograd.gradcheck(
        lambda s: attention_scores_mse(s.masked_fill(hidden, -math.inf), teacher, torch.tensor([[1, 0, 1]])), student
    )


def test_a_broken_score_is_not_taken_for_a_hidden_one():
    """Prevents a NaN of the student that the mask of the loss swallows."""
    student = torch.zeros(1, 1, 2, 2)
    student[0, 0, 0, 0] = math.nan
    assert attention_scores_mse(student, torch.zeros(1, 1, 2, 2), torch.ones(1, 2)).isnan()


def test_scores_refuse_what_has_none():
    with pytest.raises(ValueError, match=r"student \(1, 12, 2, 2\), teacher \(1, 16, 2, 2\)"):
        attention_scores_mse(torch.zeros(1, 12, 2, 2), torch.zeros(1, 16, 2, 2), torch.ones(1, 2))
    whole = Probabilities(torch.ones(2, 1, SEQ, SEQ) / SEQ)
    with pytest.raises(ValueError, match="expected queries and keys for attention scores"):
        attention_sum(attention_scores_mse, whole, whole, CHOSEN, scores=True)


# Relations ---------------------------------------------------------------------------------------------------


def naive_relation(states: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """softmax(A Aᵀ / √d_r) over the tokens that may be seen, of the concatenated heads cut into `heads`."""
    size, own, _, width = states.shape
    cut = own * width // heads
    found = torch.zeros(size, heads, SEQ, SEQ, dtype=states.dtype)
    for b in range(size):
        tokens = [torch.cat([states[b, h, i] for h in range(own)]) for i in range(SEQ)]
        for a in range(heads):
            parts = [one[a * cut : (a + 1) * cut] for one in tokens]
            for q in range(SEQ):
                scores = {k: (parts[q] @ parts[k] / math.sqrt(cut)).exp() for k in seen_by(mask, b)}
                for k, score in scores.items():
                    found[b, a, q, k] = score / sum(scores.values())
    return found


@pytest.mark.parametrize("block_bytes", [2**22, 300], ids=["whole", "blocks"])
@pytest.mark.parametrize(
    ("own", "relation_heads"), [((3, 3), None), ((3, 3), 3), ((2, 3), 6), ((3, 2), 4), ((1, 3), 1)]
)
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_a_relation_is_its_definition(mask, own, relation_heads, block_bytes, monkeypatch):
    """Prevents heads cut across tokens, the scaling of another width, swapped sides, and half of a gradient: the states
    are both queries and keys."""
    monkeypatch.setitem(attention._BLOCK_BYTES, "cpu", block_bytes)
    ours = normal(2, own[0], SEQ, 12 // own[0], seed=1).requires_grad_()
    theirs = normal(2, own[1], SEQ, 24 // own[1], seed=2)
    value = attention_sum(
        attention_kl, relation(ours, mask, relation_heads), relation(theirs, mask, relation_heads), CHOSEN
    )
    value.backward()
    heads, exact = relation_heads or own[0], ours.detach().double().requires_grad_()
    student, teacher = naive_relation(exact, heads, mask), naive_relation(theirs.double(), heads, mask)
    expected = 0.0
    for b, q in rows():
        for a in range(heads):
            for k in seen_by(mask, b):
                p, s = teacher[b, a, q, k], student[b, a, q, k]
                expected = expected + p * (p.log() - s.log()) / heads
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert_gradients([ours], [exact])


def test_relations_at_equality():
    """0, and no gradient, whatever the mask hides."""
    states = normal(2, 3, SEQ, 4, seed=1).requires_grad_()
    one, other = (relation(each, MASKS["bool"], 6) for each in (states, states.detach()))
    value = attention_sum(attention_kl, one, other, CHOSEN)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert states.grad.abs().max() < 1e-6


def test_a_width_that_heads_do_not_divide_is_an_error():
    with pytest.raises(ValueError, match="expected a width that 5 relation heads divide / got 12"):
        relation(torch.zeros(1, 3, 2, 4), heads=5)


@pytest.mark.parametrize(
    ("term", "teacher", "problem"),
    [
        (
            ValueRelation(),
            ModelShape(4, 32, 8),
            "value_relation: expected as many attention heads .* teacher 8, student 4",
        ),
        (
            QueryRelation(relation_heads=12),
            ModelShape(4, 48, 4),
            r"query_relation\.relation_heads: .* got 12, student 32 /",
        ),
        (
            KeyRelation(1.0, [["embeddings", 0]]),
            ModelShape(4, 32, 4),
            "key_relation.layers: .* embeddings attend to nothing",
        ),
        (AttentionScoresMSE(), ModelShape(4, 32, 8), "attention_scores_mse: expected as many attention heads"),
        (
            ActivationShare(1.0, [[0, "embeddings"]]),
            ModelShape(4, 32, 4),
            "activation_share.layers: .* no feed-forward",
        ),
    ],
)
def test_what_does_not_fit_is_refused(term, teacher, problem):
    """Prevents shapes that fail in the first step, in words of torch."""
    with pytest.raises(UserError, match=problem):
        term.bind("mlm", teacher, ModelShape(2, 32, 4))


def test_relation_heads_free_the_numbers_of_heads():
    term = ValueRelation(layers=[[2, 1]], relation_heads=16)
    term.bind("mlm", ModelShape(4, 64, 8), ModelShape(2, 32, 4))
    assert term.pairs == [(2, 1)]


# Feed-forward units ------------------------------------------------------------------------------------------


def naive_boundary(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Heo et al.: ρ(t) σ(μ − s) + (1 − ρ(t)) σ(μ + s), squared."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        for one, other in zip(s, t, strict=True):
            gap = margin - one if other > 0 else margin + one
            total = total + (gap**2 if gap > 0 else 0 * one) / len(s)
    return total


def naive_share(student: Tensor, teacher: Tensor, softness: float) -> Tensor:
    def share(units: Tensor) -> Tensor:
        return sum((1 + torch.erf(one / softness / math.sqrt(2))) / 2 for one in units) / len(units)

    return sum((share(s) - share(t)) ** 2 for s, t in zip(student, teacher, strict=True))


UNITS = [(activation_boundary, naive_boundary), (activation_share, naive_share)]


@pytest.mark.parametrize("option", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("shape", [(1, 1), (4, 7), (9, 3)])
@pytest.mark.parametrize(("loss", "naive"), UNITS)
def test_losses_on_units_are_their_definitions(loss, naive, shape, option):
    student, teacher = normal(*shape, seed=1).requires_grad_(), normal(*shape, seed=2).requires_grad_()
    value = loss(student, teacher, option)
    value.backward()
    exact = student.detach().double().requires_grad_()
    expected = naive(exact, teacher.detach().double(), option)
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-7)
    assert_gradients([student], [exact])
    assert teacher.grad is None
    half = [one.detach().bfloat16() for one in (student, teacher)]
    torch.testing.assert_close(loss(*half, option), loss(*(one.float() for one in half), option))


def test_units_on_the_teachers_side_by_the_margin_cost_nothing():
    """Its minimum; a copy of a teacher near its boundary is not there."""
    teacher = torch.tensor([[0.1, -0.1, 3.0], [0.0, -2.0, 1.0]])
    assert activation_boundary(torch.where(teacher > 0, 1.0, -1.0), teacher).item() == 0
    assert activation_boundary(teacher, teacher).item() == pytest.approx((0.9**2 + 0.9**2 + 1) / 3)


def test_shares_need_no_equal_widths():
    """0 at equality; towards softness 0 the share is the count of units above 0."""
    student, teacher = normal(5, 8, seed=1), normal(5, 12, seed=2)
    assert activation_share(student, student).item() == 0
    counts = [(one > 0).double().mean(-1) for one in (student, teacher)]
    sharp = activation_share(student.double(), teacher.double(), 1e-6)
    assert sharp.item() == pytest.approx((counts[0] - counts[1]).square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("loss", [activation_boundary, activation_share])
def test_units_of_other_rows_are_an_error(loss):
    with pytest.raises(ValueError, match=r"\(5, .*\(1, "):
        loss(torch.zeros(5, 7), torch.zeros(1, 7))


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra", "DistilBert", "Albert", "MobileBert", "DebertaV2"])
def test_units_are_those_before_the_activation_function(family):
    """Prevents units of another layer (ALBERT runs one block many times), or those behind the activation."""
    model, inputs, seen = model_of(family), batch(), []
    blocks = layer_stack(model)
    handles = [feed_forward_units(model, block).register_forward_hook(lambda *a: seen.append(a[-1]))
               for block in {id(block): block for block in blocks}.values()]  # fmt: skip
    model(**inputs)
    for handle in handles:
        handle.remove()
    everything = torch.arange(18)
    request = SignalRequest(activations=frozenset({(0, "all"), (2, "all"), (2, "head")}))
    recorder = Recorder(model, request, head_rows=True)
    found = forward_with_signals(model, inputs, {"head": torch.tensor([3]), "all": everything}).activations
    assert len(seen) == len(blocks)
    for layer in (0, 2):
        torch.testing.assert_close(found[layer, "all"], seen[layer].flatten(0, 1))
    torch.testing.assert_close(found[2, "head"], seen[2].flatten(0, 1)[3:4])
    assert found[0, "all"].shape == (18, 64)
    recorder.remove()
    assert not any(module._forward_hooks for block in blocks for module in block.modules())


def modern_bert(layers: int = 2) -> ModernBertForMaskedLM:
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 0)
    sizes = {"vocab_size": len(tiny.VOCABULARY), "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    return ModernBertForMaskedLM(ModernBertConfig(num_hidden_layers=layers, **sizes, **special)).eval()


def test_gated_units_are_refused():
    """Prevents a gate, or half of one, that passes for the units."""
    with pytest.raises(UserError, match="feed-forward layer of 64 units in each block of ModernBertForMaskedLM"):
        Recorder(modern_bert(), SignalRequest(activations=frozenset({(0, "all")})))


def test_units_in_pieces_are_refused():
    """Prevents the last piece of a sequence that passes for all of it."""
    with pytest.raises(UserError, match="chunk_size_feed_forward"):
        Recorder(tiny.mlm_model(2, chunk_size_feed_forward=4), SignalRequest(activations=frozenset({(0, "all")})))


@pytest.mark.parametrize("family", ["DebertaV2", "MPNet"])
@pytest.mark.parametrize("request_of", [{"values": {1}}, {"scores": {1}}])
def test_attention_that_shows_only_maps_is_refused(family, request_of):
    """Prevents relations of nothing: before a hook is set, and in words."""
    model = model_of(family)
    wanted = {name: frozenset(layers) for name, layers in request_of.items()}
    with pytest.raises(UserError, match=rf"values of layers \[1\] of {family}ForMaskedLM / got .* probabilities alone"):
        Recorder(model, SignalRequest(attention=frozenset({1}), **wanted))
    assert not model._forward_hooks


def test_values_are_the_models_own():
    """Prevents the keys, or another layer's, in place of the values; what nobody asked for is not kept."""
    model, inputs = model_of("Bert"), batch()
    states = []
    block = layer_stack(model)[2].attention.self
    handle = block.value.register_forward_hook(lambda module, args, output: states.append(output))
    Recorder(model, SignalRequest(attention=frozenset({1, 2}), values=frozenset({2})), head_rows=True)
    seen = forward_with_signals(model, inputs, {"head": torch.tensor([0]), "all": torch.arange(18)}).attention
    handle.remove()
    torch.testing.assert_close(seen[2].value.transpose(1, 2).flatten(2), states[-1])  # the first are of the probe
    assert seen[1].value is None


# Training ----------------------------------------------------------------------------------------------------


def one_of_each() -> list:
    return [TERMS[name](1.0) for name in NAMES]


@pytest.mark.parametrize("kind", ["mlm", "classification", "regression"])
def test_every_term_trains_in_every_kind(tmp_path, kind):
    """Prevents a term without a gradient, or that some kind of batch breaks: ragged rows, filled up at the end."""
    if kind == "mlm":
        student, teacher, data = tiny.mlm_model(2, seed=1), tiny.mlm_model(4), None
    else:
        student, teacher = tiny.classifier(2, 1, seed=1), tiny.classifier(4, 1)
        data = [{**row, "labels": float(row["labels"])} for row in task_rows(21)]
        if kind == "classification":
            student, teacher, data = tiny.classifier(2, seed=1), tiny.classifier(4), task_rows(21)
    run = trainer(tmp_path, student, teacher, one_of_each(), kind=kind, rows=data, max_steps=6, learning_rate=5e-3)
    run.train()
    for name in NAMES:
        values = curve(run, name)
        assert all(math.isfinite(value) and value > 0 for value in values), name
    assert curve(run)[-1] < curve(run)[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_term_alone_reaches_the_student(tmp_path, name):
    """Prevents a term that is measured and teaches nothing, and a projection that stays in the student."""
    narrow = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
    options = {"relation_heads": 8} if name.endswith("relation") else {}
    if name == "attention_scores_mse":
        options = {"heads": "average"}
    student = tiny.mlm_model(2, seed=1, **narrow)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    run = trainer(tmp_path, student, tiny.mlm_model(4), [TERMS[name](1.0, **options)], max_steps=1)
    run.train()
    plain = run.detach()
    assert plain.state_dict().keys() == before.keys()
    changed = {key for key, value in plain.state_dict().items() if not torch.equal(value, before[key])}
    assert any(".layer.0." in key for key in changed)
    assert not any("output.dense" in key and ".layer.1.output" in key for key in changed)  # nothing above it is needed


@pytest.mark.parametrize("name", NAMES)
def test_layers_of_all_are_those_of_uniform(name):
    """Prevents embeddings among blocks."""
    term = TERMS[name](layers="all")
    term.bind("mlm", ModelShape(4, 32, 4, None, 64), ModelShape(2, 32, 4, None, 64))
    assert not any(EMBEDDINGS in pair for pair in term.pairs)
    assert len(term.pairs) == 2


def test_a_cached_teacher_teaches_the_same(tmp_path):
    """Prevents units and values of other rows or layers; in float32, ragged and uneven."""
    curves = []
    for number, cache in enumerate([None, CacheConfig(tmp_path / "caches", dtype="float32")]):
        run = trainer(
            tmp_path / str(number), tiny.classifier(2, seed=1), tiny.classifier(4), one_of_each(), cache=cache,
            kind="classification", rows=task_rows(21), max_steps=-1, num_train_epochs=2,
        )  # fmt: skip
        run.train()
        curves.append([value for name in NAMES for value in curve(run, name)])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


@pytest.mark.parametrize("terms", [[ActivationBoundary()], [ActivationShare()], [ValueRelation()]])
def test_reentrant_checkpointing_is_refused(tmp_path, terms):
    """Prevents terms without a gradient."""
    with pytest.raises(UserError, match="use_reentrant=false"):
        trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), terms,
                gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True})  # fmt: skip
