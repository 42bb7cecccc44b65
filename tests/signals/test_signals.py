"""Signals: what hooks show is what the model computes, for every family of encoders, and nothing stays behind."""

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.signals.attention import QueriesKeys
from distil_nlp.signals.call import current_call
from distil_nlp.signals.probe import say_once
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import EMBEDDINGS, ProjectionInput, SignalRequest, forward_with_signals
from tests.helpers.families import FAMILIES, ROWS, batch, classifier_of, model_of

REQUEST = SignalRequest(True, frozenset({(EMBEDDINGS, "all"), (1, "all"), (3, "all")}), frozenset({0, 2, 3}))


@pytest.mark.parametrize("family", FAMILIES)
def test_signals_are_the_models_own(family):
    """Prevents an off-by-one in layers, maps of another layer, scores with padding, or logits of other rows."""
    model, inputs = model_of(family), batch()
    plain = model(**inputs, output_hidden_states=True)
    model.set_attn_implementation("eager")
    maps = model(**inputs, output_attentions=True).attentions
    Recorder(model, REQUEST, head_rows=True)
    seen = forward_with_signals(model, inputs, ROWS)
    torch.testing.assert_close(seen.logits, plain.logits.flatten(0, 1)[ROWS["head"]], atol=1e-5, rtol=1e-4)
    for layer, name in REQUEST.hidden:
        expected = plain.hidden_states[layer + 1].flatten(0, 1)[ROWS["all"]]
        torch.testing.assert_close(seen.hidden[layer, name], expected, atol=1e-5, rtol=1e-4)
    for layer in REQUEST.attention:
        ours = seen.attention[layer].log_probabilities().exp()
        torch.testing.assert_close(ours[0], maps[layer][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours[1, :, :6], maps[layer][1, :, :6], atol=1e-5, rtol=1e-4)
        assert ours[1, :, :6, 6:].max() < 1e-30  # padded keys


@pytest.mark.parametrize("groups", [2, 4])
def test_heads_that_share_keys_have_maps_of_their_own(groups):
    """Prevents maps of other keys where several heads share some, as in grouped-query attention."""
    model, inputs = classifier_of("EuroBert", num_key_value_heads=4 // groups, mask_token_id=4).eval(), batch()
    model.set_attn_implementation("eager")
    maps = model(**inputs, output_attentions=True).attentions
    Recorder(model, SignalRequest(True, attention=frozenset({1}), values=frozenset({1})))
    seen = forward_with_signals(model, inputs, ROWS).attention[1]
    torch.testing.assert_close(seen.log_probabilities().exp()[0], maps[1][0], atol=1e-5, rtol=1e-4)
    assert seen.query.shape == seen.key.shape == seen.value.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_the_vocabulary_stands_for_the_logits(family):
    """Prevents logits of other rows or without their bias, where the head hands on what it would have projected."""
    model, inputs = model_of(family), batch()
    plain = model(**inputs).logits.flatten(0, 1)[ROWS["head"]]
    recorder = Recorder(model, SignalRequest(logits=True), head_rows=True, projects=False)
    seen = forward_with_signals(model, inputs, ROWS)
    assert seen.logits is None
    parts = [seen.vocabulary.logits(0, 2), seen.vocabulary.logits(2, 3)]
    torch.testing.assert_close(torch.cat(parts), plain, atol=1e-5, rtol=1e-4)
    with recorder.measuring(lambda vocabulary: vocabulary.logits(0, 3).sum()):
        measured = forward_with_signals(model, inputs, ROWS)
    torch.testing.assert_close(measured.measured, plain.sum(), atol=1e-4, rtol=1e-4)
    assert measured.vocabulary is measured.logits is None
    recorder.remove()
    torch.testing.assert_close(model(**inputs).logits.flatten(0, 1)[ROWS["head"]], plain, atol=1e-5, rtol=1e-4)


ESM = {"pad_token_id": 1, "mask_token_id": 2, "position_embedding_type": "rotary", "token_dropout": False}


@pytest.mark.parametrize(("family", "changes"), [("DebertaV2", {"legacy": False}), ("Esm", ESM)])
def test_a_head_that_projects_in_its_own_way_is_left_alone(family, changes):
    """Prevents the hidden layer of a newer head from passing for the vocabulary, and a bias that is added behind."""
    model, inputs = model_of(family, **changes), batch()
    plain = model(**inputs).logits.flatten(0, 1)[ROWS["head"]]
    Recorder(model, SignalRequest(logits=True), head_rows=True, projects=False)
    seen = forward_with_signals(model, inputs, ROWS)
    assert seen.vocabulary.weight is None
    torch.testing.assert_close(seen.vocabulary.logits(0, 3), plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_mask_is_a_mask_of_ones(family):
    """Prevents a family that reads something else into a missing mask: batches without padding come without one."""
    model, inputs = model_of(family), batch()
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    expected = model(**inputs).logits
    Recorder(model, SignalRequest(logits=True), head_rows=True)
    found = forward_with_signals(model, {"input_ids": inputs["input_ids"]}, {"head": torch.arange(18)}).logits
    torch.testing.assert_close(found, expected.flatten(0, 1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["Bert", "DebertaV2"])
def test_attention_is_before_dropout(family):
    """Prevents matching maps with holes: rows that do not sum to one, 10 % exact zeros."""
    model = model_of(family, attention_probs_dropout_prob=0.5).train()
    Recorder(model, REQUEST, head_rows=True)
    maps = forward_with_signals(model, batch(), ROWS).attention[2].log_probabilities().exp()
    torch.testing.assert_close(maps.sum(-1)[0], torch.ones(4, 9), atol=1e-5, rtol=0)
    assert (maps[0] > 0).all()


def test_sdpa_stays_and_only_mapped_layers_are_kept():
    """Prevents eager attention everywhere, and keeping what no term needs."""
    model = model_of("Bert")
    recorder = Recorder(model, SignalRequest(attention=frozenset({1}), hidden=frozenset({(2, "all")})), head_rows=True)
    seen = forward_with_signals(model, batch(), ROWS)
    assert model.config._attn_implementation == "distil_nlp_sdpa"
    assert set(seen.attention) == {1}
    assert isinstance(seen.attention[1], QueriesKeys)
    assert set(seen.hidden) == {(2, "all")}
    assert seen.logits is None
    assert recorder.last is None
    assert current_call() is None


def test_without_rows_the_model_is_its_plain_self():
    """Prevents a model that can no longer be evaluated or exported while a recorder hangs on it."""
    model, inputs = model_of("Bert"), batch()
    before = model(**inputs).logits
    recorder = Recorder(model, REQUEST, head_rows=True)
    torch.testing.assert_close(model(**inputs).logits, before)
    recorder.remove()
    torch.testing.assert_close(model(**inputs).logits, before)
    assert model.config._attn_implementation == "sdpa"
    assert "forward" not in model.get_output_embeddings().__dict__


def test_saved_configuration_names_no_attention_of_ours(tmp_path):
    """Prevents an exported student that plain transformers cannot load."""
    model = model_of("Bert")
    Recorder(model, REQUEST, head_rows=True).remove()
    model.save_pretrained(tmp_path)
    assert "distil_nlp" not in (tmp_path / "config.json").read_text()


def test_eager_fallback_says_what_it_costs_once(capsys):
    """Prevents a silent switch to eager attention, and three warnings of one run."""
    say_once.cache_clear()
    for _ in range(2):
        Recorder(model_of("DebertaV2"), REQUEST, head_rows=True).remove()
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("DebertaV2ForMaskedLM")
    assert line.endswith("stay in memory")


def test_a_model_without_a_stack_of_layers_is_refused():
    """Prevents an obscure failure deep in a hook."""
    model = model_of("Bert")
    model.config.num_hidden_layers = 7
    with pytest.raises(UserError, match="stack of 7 layers"):
        Recorder(model, REQUEST)


def test_attention_that_cannot_be_seen_is_an_error():
    """Prevents an attention term that is silently without maps."""
    model = model_of("DebertaV2")
    for layer in model.base_model.encoder.layer:
        layer.attention.self.dropout = torch.nn.Identity()
    with pytest.raises(UserError, match=r"attention of layers \[0, 2, 3\]"):
        Recorder(model, REQUEST, head_rows=True)


def test_a_projection_may_see_the_teacher_too():
    """Prevents states of another name or another order, and a teacher that is wanted where there is none."""
    model, inputs, seen = model_of("Bert"), batch(), []

    class Both(torch.nn.Module):
        def forward(self, *states):
            seen.append(states)
            return sum(one.sum() for one in states)

    model.distillation_projections = torch.nn.ModuleDict({"alone": Both(), "both": Both()})
    sources = {"alone": ProjectionInput(1, "all"), "both": ProjectionInput(3, "all", teacher=(5, "all"))}
    Recorder(model, REQUEST, projections=sources)
    with torch.no_grad():
        signals = forward_with_signals(model, inputs, ROWS, {"both": torch.full((15, 8), 2.0)})
    assert [len(states) for states in seen] == [1, 2]
    assert seen[0][0] is signals.hidden[1, "all"]
    assert seen[1][0] is signals.hidden[3, "all"]
    assert signals.projected["both"].item() == pytest.approx(
        signals.hidden[3, "all"].sum().item() + 2.0 * 15 * 8, rel=1e-5
    )
