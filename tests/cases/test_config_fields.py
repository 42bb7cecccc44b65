"""Fields of config.json that change what a forward returns or how it runs, the whole way: load, signals, save."""

import json

import pytest
import torch
import transformers

from distil_nlp.errors import UserError
from distil_nlp.models import build_student, load_config, load_model, load_tokenizer, start_from_checkpoint
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from distil_nlp.tasks import Head
from tests.helpers import tiny
from tests.helpers.encoders import encoder
from tests.helpers.training import trainer

pytestmark = pytest.mark.integration

TWO = Head("classification", ("LABEL_0", "LABEL_1"), 2)
FAMILIES = ("Bert", "DistilBert", "ModernBert", "DebertaV2")
HARMLESS = {
    "output_attentions": {"output_attentions": True},
    "output_hidden_states": {"output_hidden_states": True},
    "tuples": {"return_dict": False},
    "tuples with all": {"return_dict": False, "output_attentions": True, "output_hidden_states": True},
    "an old name": {"use_return_dict": False},
    "cache": {"use_cache": True},
    "torchscript": {"torchscript": True},
    "chunks": {"chunk_size_feed_forward": 7},
    "checkpointing": {"gradient_checkpointing": True},
    "dropped layers": {"layerdrop": 0.5},
    "no heads pruned": {"pruned_heads": {}},
    "flash": {"attn_implementation": "flash_attention_2"},
    "flash, an old name": {"_attn_implementation": "flash_attention_2"},
    "flash, inner": {"_attn_implementation_internal": "flash_attention_2"},
    "eager": {"attn_implementation": "eager"},
    "experts": {"experts_implementation": "grouped_mm"},
    "bfloat16": {"torch_dtype": "bfloat16"},
    "untied": {"tie_word_embeddings": False},
    "no quantisation": {"quantization_config": None},
    "a list of classes": {"id2label": ["LABEL_0", "LABEL_1"]},
    "a list of ids": {"label2id": ["LABEL_0", "LABEL_1"]},
    "dropout": {"classifier_dropout": 0.3},
    "relative positions": {"position_embedding_type": "relative_key"},
    "generation": {"max_length": 20, "do_sample": True, "num_beams": 4},
}
TELLING = ("output_attentions", "tuples with all", "an old name", "chunks", "flash, inner", "a list of classes")
"""Those that every family is tried with."""
REFUSED = {
    "pruned": ({"pruned_heads": {"0": [1]}}, r"expected all attention heads / got pruned_heads=\{'0': \[1\]\}"),
    "quantised": ({"quantization_config": {"quant_method": "bitsandbytes"}}, r"quantization_config \(bitsandbytes\)"),
    "decodes": ({"is_encoder_decoder": True}, "also decodes"),
    "no number": ({"hidden_dropout_prob": "x"}, r"config\.json at .*hidden_dropout_prob"),
}


def saved(folder, model, **fields):
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return str(folder)


def batch():
    ids = torch.arange(5, 23).view(2, 9)
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_field_that_models_carry_changes_nothing_on_the_whole_way(tmp_path, family):
    """Prevents tuples, maps and lengths that distilling cannot use, and a student that cannot be saved or loaded."""
    model = encoder(family)
    expected, clean = model(**batch()).logits, None
    for number, name in enumerate(HARMLESS if family == "Bert" else TELLING):
        teacher = load_model(saved(tmp_path / str(number), model, **HARMLESS[name]), TWO)
        student, report = build_student(teacher, [0, 1])
        assert not report.new, name
        for either in (teacher, student.eval()):
            recorder = Recorder(either, SignalRequest(True, frozenset({(0, "all")}), frozenset({1})))
            signals = forward_with_signals(either, batch(), {"all": torch.arange(9)})
            torch.testing.assert_close(signals.logits, expected, msg=name)
            assert signals.hidden[0, "all"].shape == (9, 32)
            either.save_pretrained(tmp_path / "while hooked")
            recorder.remove()
        student.save_pretrained(tmp_path / "student")
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "student").eval()
        torch.testing.assert_close(plain(**batch()).logits, expected, msg=name)
        config = json.loads((tmp_path / "student" / "config.json").read_text())
        clean = clean or config
        carried = {"untied", "dropout", "dropped layers"}
        assert name in carried or {k: v for k, v in config.items() if k != "label2id"} == clean, name


@pytest.mark.parametrize("fault", REFUSED)
def test_a_field_that_cannot_be_followed_is_named(tmp_path, fault):
    """Prevents a traceback from within, or a student of weights that are no plain tensors."""
    fields, message = REFUSED[fault]
    name = saved(tmp_path, tiny.classifier(2), **fields)
    with pytest.raises(UserError, match=message):
        load_model(name, TWO)


@pytest.mark.parametrize("fields", [{"use_return_dict": False}, {"id2label": ["no", "yes"]}])
def test_a_tokenizer_is_not_blamed_for_config_json(tmp_path, fields):
    """Prevents "expected a tokenizer" where config.json is at fault, and a refusal where it can be mended."""
    name = saved(tmp_path, tiny.classifier(2), **fields)
    assert len(load_tokenizer(name)) == len(tiny.VOCABULARY)
    assert load_config(name).num_labels == 2
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": "wide"}')
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"expected a config\.json at"):
        load_config(name)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra"])
@torch.no_grad()
def test_attention_to_the_left_alone_is_seen_as_such(tmp_path, family):
    """Prevents maps of a model with is_decoder that show words which it never looked at."""
    name = saved(tmp_path, encoder(family, is_decoder=True))
    teacher, inputs = load_model(name, TWO), {"input_ids": torch.arange(5, 23).view(2, 9)}
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(name, attn_implementation="eager").eval()
    expected = plain(**inputs, output_attentions=True)
    recorder = Recorder(teacher, SignalRequest(True, attention=frozenset({0})))
    signals = forward_with_signals(teacher, inputs, {})
    recorder.remove()
    torch.testing.assert_close(signals.logits, expected.logits)
    maps = signals.attention[0].log_probabilities().exp()
    torch.testing.assert_close(maps, expected.attentions[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "fields", [{"output_attentions": True}, {"return_dict": False}, {"output_hidden_states": True}]
)
def test_a_model_of_ones_own_trains_and_is_saved_too(tmp_path, fields):
    """Prevents the loss of all training at the first save where a student does not come from a recipe."""
    teacher, student = (tiny.classifier(2, seed=seed) for seed in (0, 1))
    for model in (teacher, student):
        model.set_attn_implementation("eager")  # what asking for maps takes
        model.config.update(fields)
    training = trainer(tmp_path, student, teacher, kind="classification", max_steps=1)
    training.train()
    training.save_model(str(tmp_path / "saved"))
    assert start_from_checkpoint(str(tmp_path / "saved"), TWO)[1].new == []
