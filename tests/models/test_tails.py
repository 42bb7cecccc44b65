"""Tails of models of many families: the model's own logits from the states at a cut, and plain models put together."""

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.models.tails import Tail, join_tail
from tests.helpers import tiny
from tests.helpers.families import CLASSIFIERS, LAYERS, classifier_of

WITHOUT_CUT = {
    "Albert", "BigBird", "Canine", "DebertaV2", "Flaubert", "Funnel", "IBert", "LayoutLMv3", "Lilt", "Reformer",
    "SqueezeBert", "XLM", "Xmod",
}  # fmt: skip
"""Families that cannot be cut: shared blocks, blocks in parts, blocks that more than states go through."""
WITHOUT_BLOCKS = WITHOUT_CUT | {"Deberta", "MPNet", "ModernBertDecoder"}
"""Families whose last blocks share weights with the others, or are told apart by number."""
COMMON = ("Bert", "Roberta", "DistilBert", "Electra", "ModernBert", "Deberta", "Albert")
CASES = [
    pytest.param(family, blocks, marks=() if family in COMMON else pytest.mark.integration)
    for family in CLASSIFIERS
    for blocks in (0, 1)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("family", "blocks"), CASES)
def test_a_model_is_cut_and_joined_again(family, blocks):
    """Prevents a tail that leaves out a norm or a pooler, and families that are cut where they cannot be."""
    model = classifier_of(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if family in (WITHOUT_BLOCKS if blocks else WITHOUT_CUT):
        with pytest.raises(UserError, match=r"layers|blocks"):
            Tail(model, blocks)
        return
    tail = Tail(model, blocks)  # compares its logits with the model's
    joined = join_tail(model, LAYERS - blocks, tail)
    words = torch.randint(5, 100, (2, 16), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(joined.eval()(input_ids=words).logits, model(input_ids=words).logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_tail_keeps_no_embeddings_and_trains_what_counts():
    """Prevents a copy of the vocabulary for each exit, and weights without a gradient that DDP would wait for."""
    model = tiny.classifier(3)
    tail = Tail(model, 1)
    behind = [model.bert.encoder.layer[2], model.bert.pooler, model.classifier]
    assert sum(w.numel() for w in tail.parameters()) == sum(w.numel() for part in behind for w in part.parameters())
    states = torch.randn(2, 7, 32)
    tail(states, {"input_ids": torch.zeros(2, 7, dtype=torch.long)}).sum().backward()
    assert all(weight.grad is not None for weight in tail.trained.values())


def test_states_reach_a_tail_whole():
    """Prevents a tail that reads other rows, or padding: logits of a shallower model of the same first blocks."""
    model = tiny.classifier(3).eval()
    tail = Tail(model)
    words, mask = torch.tensor([[2, 7, 8, 3, 0], [2, 9, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]])
    inputs = {"input_ids": words, "attention_mask": mask}
    states = model(**inputs, output_hidden_states=True).hidden_states[2]
    expected = join_tail(model, 2, tail).eval()(**inputs).logits
    torch.testing.assert_close(tail.eval()(states, inputs), expected)
