"""Inputs as models can embed them: positions, segments, and ids of vocabularies with holes."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizerFast, PreTrainedTokenizerFast, XLNetConfig

from distil_nlp.data import MaskingCollator, token_frequencies
from distil_nlp.data.augmentation.word_replacement import _CandidateVocabulary
from distil_nlp.data.row_sets import EPOCH
from distil_nlp.errors import UserError
from distil_nlp.evaluation.efficiency import measure_efficiency
from distil_nlp.evaluation.latency import LatencyPlan
from distil_nlp.models import check_words, count_ids, usable_positions
from distil_nlp.models.positions import NO_LIMIT
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.training.fit import _tokenizer_for
from tests.helpers import tiny
from tests.helpers.encoders import ENCODERS, encoder, encoder_config

pytestmark = pytest.mark.integration

NO_TABLE = {"DebertaV2", "ModernBert", "Esm", "NomicBert", "Gte"}


def fits(model, length):
    try:
        model(input_ids=torch.full((1, length), 7), attention_mask=torch.ones(1, length, dtype=torch.long))
    except (IndexError, RuntimeError):
        return False
    return True


@torch.no_grad()
@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_positions_are_counted_as_the_model_embeds_them(family):
    """Prevents an index beyond the table where a family counts from the padding's id on, and a limit without one."""
    for padding in (0, 3):
        model = encoder(family, pad_token_id=padding)
        length = usable_positions(model.config)
        assert (length == NO_LIMIT) == (family in NO_TABLE)
        assert fits(model, min(length, 90))
        assert length == NO_LIMIT or not fits(model, length + 1)


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("DebertaV2", {"position_biased_input": True}, 48),
        ("Esm", {"position_embedding_type": "absolute"}, 46),
        ("ModernBert", {"max_position_embeddings": 10**30}, NO_LIMIT),
    ],
)
def test_a_limit_comes_from_a_table_alone(family, changes, expected):
    """Prevents a field without effect as a limit."""
    assert usable_positions(encoder_config(family, **changes)) == expected


def test_minus_one_is_no_limit():
    """Prevents "expected at most -1 tokens" for XLNet, whose positions are relative."""
    config = XLNetConfig(vocab_size=99, d_model=32, n_layer=2, n_head=4, d_inner=64)
    assert config.max_position_embeddings == -1
    assert usable_positions(config) == NO_LIMIT


@pytest.mark.parametrize("family", ["Data2VecText", "Roberta", "MPNet"])
def test_efficiency_is_measured_at_a_length_that_fits(family):
    """Prevents an index beyond the table after all the training."""
    model = encoder(family, pad_token_id=3)
    plan = LatencyPlan((1,), forwards=(1, 1), warm_up=0)
    costs = measure_efficiency({"student": model}, None, dict, plan=plan, max_length=128, device="cpu")
    assert costs["efficiency"]["max_length"] == usable_positions(model.config) < 48


def pair():
    ids = torch.arange(5, 25).view(2, 10)
    segments = torch.tensor([[0] * 4 + [1] * 5 + [2]] * 2)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": segments}


@torch.no_grad()
@pytest.mark.parametrize("segments", [1, 2])
@pytest.mark.parametrize(
    "family", ["Bert", "Roberta", "Electra", "Albert", "MegatronBert", "ConvBert", "RemBert", "NomicBert", "Deberta"]
)
def test_segments_beyond_the_models_own_are_its_last(family, segments):
    """Prevents an IndexError, or a device-side assert, where a tokenizer numbers more segments than a model has."""
    model, batch = encoder(family, type_vocab_size=segments), pair()
    expected = model(**batch | {"token_type_ids": batch["token_type_ids"].clamp(max=segments - 1)}).logits
    for runs in (model, Ensemble([model])):
        recorder = Recorder(runs, SignalRequest(logits=True))
        signals = forward_with_signals(runs, batch, {})
        recorder.remove()
        torch.testing.assert_close(signals.logits, expected)


@torch.no_grad()
@pytest.mark.parametrize("family", ["DebertaV2", "MPNet", "DistilBert", "XLMRoberta"])
def test_models_without_segments_take_a_pair(family):
    """Prevents a fault where a family has no segments, or none by its configuration."""
    model = encoder(family, **({"type_vocab_size": 1} if family == "XLMRoberta" else {}))
    recorder = Recorder(model, SignalRequest(logits=True))
    assert forward_with_signals(model, pair(), {}).logits.shape == (2, 2)
    recorder.remove()


@pytest.mark.parametrize(("segments", "named"), [(1, False), (2, True)])
def test_a_students_tokenizer_numbers_segments_only_if_the_student_has_them(segments, named):
    """Prevents a student that fails on pairs in plain transformers."""
    tokenizer = _tokenizer_for(tiny.classifier(1, type_vocab_size=segments), tiny.tokenizer())
    assert ("token_type_ids" in tokenizer("the cat", "a dog")) == named


HOLES = {token: i + (i > 9) + 3 * (i > 20) for i, token in enumerate(tiny.VOCABULARY)}
LARGEST = max(HOLES.values())


def wrapped(model):
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="[MASK]", **names)


def with_added_tokens():
    tokenizer = wrapped(models.WordLevel(dict(HOLES), unk_token="[UNK]"))
    tokenizer.add_tokens(["beyond", "further"])
    return tokenizer


TOKENIZERS = {
    "WordPiece": lambda: BertTokenizerFast(vocab=HOLES),
    "WordLevel": lambda: wrapped(models.WordLevel(dict(HOLES), unk_token="[UNK]")),
    "BPE": lambda: wrapped(models.BPE(dict(HOLES), [], unk_token="[UNK]")),
    "Unigram": lambda: wrapped(models.Unigram([(token, -1.0) for token in [*HOLES, "cat", "cat"]], unk_id=1)),
    "added tokens": with_added_tokens,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_ids_are_counted_by_the_largest(kind):
    """Prevents an IndexError, and random words that no text has, where a vocabulary has fewer tokens than ids."""
    tokenizer = TOKENIZERS[kind]()
    known = set(tokenizer.get_vocab().values())
    ids, largest = count_ids(tokenizer), max(known)
    assert ids == largest + 1
    rows = [{"input_ids": [2, largest, *sorted(known)[5:9], 3]}] * 8
    frequencies = token_frequencies(rows, ids)
    assert frequencies[largest] == 9
    collator = MaskingCollator(tokenizer, 0.9, log_weights=-np.log(frequencies))
    batches = [collator([{**row, EPOCH: epoch} for row in rows]) for epoch in range(9)]
    assert set(torch.cat([batch["input_ids"].flatten() for batch in batches]).tolist()) <= known
    likely = _CandidateVocabulary(tokenizer).likeliest(torch.randn(3, ids), [5, 6, largest], ids)
    assert {number for row in likely for number in row.tolist()} <= known
    check_words(tokenizer, encoder_config("Bert", vocab_size=ids), "the model")
    with pytest.raises(UserError, match=f"all {ids} tokens"):
        check_words(tokenizer, encoder_config("Bert", vocab_size=ids - 1), "the model")


def test_a_vocabulary_without_holes_is_counted_as_before():
    """Prevents other random words in recipes that were run before."""
    tokenizer = tiny.tokenizer()
    assert count_ids(tokenizer) == len(tokenizer)
    special = tokenizer.all_special_ids
    ordinary = MaskingCollator(tokenizer)._ordinary
    assert ordinary.tolist() == [number for number in range(len(tokenizer)) if number not in special]
