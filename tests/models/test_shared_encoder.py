"""One encoder for several models: the same tensors, heads of their own, and a state that has each tensor once."""

import pytest
import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from distil_nlp.errors import UserError
from distil_nlp.models.shared_encoder import TaskModels, share_encoder
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest
from tests.helpers import tiny


def models():
    return [tiny.classifier(2, 3), tiny.classifier(2, 1, seed=1), tiny.tagger(2, 5, seed=2)]


def shared():
    found = models()
    share_encoder(found, ["a", "b", "c"])
    return found


def test_encoders_are_the_same_tensors_and_heads_are_not():
    """Prevents a copy of the encoder for each task, and a head that another task trains."""
    before, after = models(), shared()
    for one, model in zip(before[1:], after[1:], strict=True):
        for name, value in model.named_parameters():
            is_shared = name.startswith(("bert.embeddings", "bert.encoder"))
            assert (value is dict(after[0].named_parameters()).get(name)) == is_shared, name
            if not is_shared:
                assert torch.equal(value, dict(one.named_parameters())[name])
    assert not hasattr(after[2].bert, "pooler") or after[2].bert.pooler is None


def test_a_state_has_each_tensor_once_and_loads_again():
    """Prevents checkpoints with the encoder once for each task, and students that drift apart after a resume."""
    one, other = TaskModels(shared()), TaskModels(shared())
    state = one.state_dict()
    assert len({value.data_ptr() for value in state.values()}) == len(state)
    assert len(state) == len({id(value) for value in one.parameters()})
    changed = {name: value + 1 for name, value in state.items()}
    found = other.load_state_dict(changed, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([], [])
    assert all(torch.equal(value, changed[name]) for name, value in other.state_dict().items())
    lost = other.load_state_dict(
        {name: value for name, value in changed.items() if "classifier" not in name}, strict=False
    )
    assert lost.missing_keys


def test_a_forward_is_of_the_chosen_task():
    """Prevents logits of another head."""
    joined = TaskModels(shared())
    ids = torch.tensor([[2, 7, 8, 3]])
    for task, width in enumerate((3, 1, 5)):
        joined.task = task
        assert joined(input_ids=ids).logits.shape[-1] == width


@pytest.mark.parametrize(
    ("other", "got"),
    [
        (lambda: tiny.classifier(2, hidden_size=16), ", 16)"),
        (lambda: tiny.classifier(3), "the shape none and"),
        (
            lambda: DistilBertForSequenceClassification(DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=4)),
            "BertModel and DistilBertModel",
        ),
    ],
)
def test_unlike_encoders_are_refused(other, got):
    """Prevents an encoder that fits one head alone, found out in the first step."""
    with pytest.raises(UserError) as error:
        share_encoder([tiny.classifier(2), other()], ["topics", "moods"])
    message = str(error.value)
    assert "one shape of encoder for the students of topics and moods" in message
    assert got in message
    assert "student.name" in message


def test_attention_of_a_shared_encoder_is_seen_through_each_model():
    """Prevents attention terms that are refused for all tasks but the first, whose configuration the blocks have."""
    found = shared()
    own = found[0].config._attn_implementation
    for model in found[:2]:
        Recorder(model, SignalRequest(attention=frozenset({0, 1}))).remove()  # it probes the model
    blocks = found[1].bert.encoder.layer
    assert {block.attention.self.config._attn_implementation for block in blocks} == {own}
