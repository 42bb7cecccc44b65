"""What a checkpoint's files hold against what is loaded: good ones of every family, and those that do not fit."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from distil_nlp.errors import UserError
from distil_nlp.evaluation.glue.encoder import Encoder
from distil_nlp.models import load_model, load_with_missing_keys, start_from_checkpoint
from distil_nlp.tasks import Head
from tests.helpers import tiny
from tests.helpers.encoders import ENCODERS, encoder

pytestmark = pytest.mark.integration

TWO, WORDS = Head("classification", ("no", "yes"), 2), Head("mlm")


def rewrite(folder, change):
    """Replace the tensors of a saved model by what `change` makes of them."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def configure(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def aged(tensors, prefix):
    """Return tensors as early versions named them, with their constants, and other tasks' heads."""
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {re.sub(r"LayerNorm\.(weight|bias)$", lambda m: old[m[0]], key): value for key, value in tensors.items()}
    constants = {f"{prefix}.embeddings.{name}": torch.arange(48)[None] for name in ("position_ids", "token_type_ids")}
    rotary = {f"{prefix}.encoder.layer.0.attention.self.rotary_embeddings.inv_freq": torch.ones(4)}
    heads = {"qa_outputs.weight", "cls.seq_relationship.weight", "discriminator_predictions.dense.weight"}
    return renamed | constants | rotary | {name: torch.ones(2, 32) for name in heads}


@pytest.mark.parametrize("family", sorted(ENCODERS))
def test_a_good_checkpoint_is_loaded_whatever_its_head(tmp_path, family):
    """Prevents a false refusal: another task's head, an encoder alone, old names and constants are no fault."""
    model = encoder(family)
    model.save_pretrained(tmp_path / "whole")
    rewrite(tmp_path / "whole", lambda tensors: aged(tensors, model.base_model_prefix))
    model.base_model.save_pretrained(tmp_path / "base")
    for folder, head in (("whole", WORDS), ("base", TWO)):
        loaded, new = load_with_missing_keys(str(tmp_path / folder), head, new_head=True)
        assert new
        own = dict(model.base_model.named_parameters())
        same = {key: torch.equal(value, own[key]) for key, value in loaded.base_model.named_parameters() if key in own}
        assert all(same.values())
        assert len(same) > 10


def without(*parts):
    return lambda tensors: {key: value for key, value in tensors.items() if not any(part in key for part in parts)}


def prefixed(prefix, instead_of=""):
    return lambda tensors: {prefix + key.removeprefix(instead_of): value for key, value in tensors.items()}


def more_blocks(tensors):
    return tensors | {key.replace("layer.1.", "layer.2."): value.clone() for key, value in tensors.items()}


def adapters(tensors):
    return {key.replace("query.weight", "query.base_layer.weight"): value for key, value in tensors.items()} | {
        "bert.encoder.layer.0.attention.self.query.lora_A.default.weight": torch.zeros(2, 32)
    }


SELF = "bert.encoder.layer.0.attention.self"
FAULTS = {
    "compiled": (prefixed("_orig_mod."), r"none for 37 of its 37 tensors.*take the prefix '_orig_mod\.' off"),
    "parallel": (prefixed("module."), r"take the prefix 'module\.' off"),
    "wrapped": (prefixed("model."), r"take the prefix 'model\.' off"),
    "a part of another": (prefixed("net.student."), r"take the prefix 'net\.student\.' off"),
    "renamed base": (prefixed("backbone.", "bert."), r"take the prefix 'backbone\.' off"),
    "another family": (prefixed("roberta.", "bert."), r"model_type is 'bert', the names are those of a roberta"),
    "a block": (without("layer.1."), r"none for 16 of its 37 tensors \(.*encoder\.layer\.1\."),
    "a norm": (without("layer.0.output.LayerNorm"), r"none for 2 of its 37 tensors"),
    "embeddings": (without("word_embeddings"), r"none for 1 of its 37 tensors \(.*embeddings\.word_emb"),
    "adapters": (adapters, r"merge_and_unload"),
    "relative positions": (
        lambda own: own | {f"{SELF}.distance_embedding.weight": torch.zeros(9, 8)},
        r"1 tensors that none of its modules reads \(.*distance_embedding.*absolute positions",
    ),
    "more blocks": (more_blocks, r"16 tensors that none.*num_hidden_layers.*blocks up to 2"),
    "unmerged": (lambda own: own | {f"{SELF}.query.lora_A.weight": torch.zeros(2, 32)}, "merge_and_unload"),
    "scales": (lambda own: own | {f"{SELF}.query.weight_scale": torch.zeros(1)}, r"query\.weight_scale"),
    "cross-attention": (
        lambda own: own | {"bert.encoder.layer.0.crossattention.self.query.weight": torch.zeros(32, 32)},
        "crossattention",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_encoder_of_other_weights_is_refused_by_every_door(tmp_path, fault):
    """Prevents random weights, or half of a model, that pass for a trained teacher, student or encoder."""
    change, message = FAULTS[fault]
    tiny.classifier(2).save_pretrained(tmp_path)
    rewrite(tmp_path, change)
    name = str(tmp_path)
    for load in (
        lambda: load_model(name, TWO),
        lambda: load_model(name, WORDS, new_head=True),
        lambda: start_from_checkpoint(name, TWO),
        lambda: Encoder.load(name),
    ):
        with pytest.raises(UserError, match=message):
            load()


@pytest.mark.parametrize("fault", ["more blocks", "a block", "relative positions"])
def test_an_encoder_saved_alone_is_weighed_too(tmp_path, fault):
    """Prevents names without the encoder's prefix from being overlooked."""
    tiny.mlm_model(2).bert.save_pretrained(tmp_path)
    change, message = FAULTS[fault]
    rewrite(tmp_path, lambda own: without("pooler")(prefixed("", "bert.")(change(prefixed("bert.")(own)))))
    with pytest.raises(UserError, match=message):
        load_model(str(tmp_path), TWO, new_head=True)


@pytest.mark.parametrize("field", ["vocab_size", "max_position_embeddings", "type_vocab_size", "intermediate_size"])
def test_other_sizes_are_told_with_both_shapes(tmp_path, field):
    """Prevents transformers' "look at the above report", which nobody sees."""
    tiny.classifier(2).save_pretrained(tmp_path)
    configure(tmp_path, **{field: 77})
    with pytest.raises(UserError, match=r"instead of \(77.*restore the config.json"):
        load_model(str(tmp_path), TWO, new_head=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"num_hidden_layers": 10**6}, {"num_hidden_layers": 10**12}, {"vocab_size": 10**10}, {"hidden_size": 4 * 10**6},
        {"intermediate_size": 10**11}, {"max_position_embeddings": 10**11}, {"type_vocab_size": 10**10},
        {"num_labels": 10**9, "id2label": None}, {"text_config": {"num_hidden_layers": 10**9}},
    ],
)  # fmt: skip
def test_sizes_beyond_the_weights_are_refused_before_anything_is_built(tmp_path, fields):
    """Prevents a stranger's config.json that fills the memory."""
    tiny.classifier(2).save_pretrained(tmp_path)
    configure(tmp_path, **fields)
    with pytest.raises(UserError, match=r"config\.json of .* expected sizes of the weights beside it"):
        load_model(str(tmp_path), TWO, new_head=True)


@pytest.mark.parametrize(
    ("family", "field"),
    [
        ("ModernBert", "num_hidden_layers"), ("Albert", "num_hidden_groups"), ("Albert", "inner_group_num"),
        ("MobileBert", "num_feedforward_networks"), ("DistilBert", "n_layers"), ("XLM", "n_layers"),
        ("DistilBert", "dim"), ("Electra", "embedding_size"), ("RoFormer", "max_position_embeddings"),
    ],
)  # fmt: skip
def test_counts_by_other_names_are_compared_too(tmp_path, family, field):
    """Prevents a check that knows BERT's names alone."""
    encoder(family).save_pretrained(tmp_path)
    configure(tmp_path, **{field: 10**7})
    with pytest.raises(UserError, match="sizes of the weights beside it"):
        load_model(str(tmp_path), TWO, new_head=True)


def test_sharded_weights_are_weighed(tmp_path):
    """Prevents a check that sees one file of several."""
    tiny.classifier(2).save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    load_model(str(tmp_path), replace(TWO, labels=None))
    configure(tmp_path, num_hidden_layers=1)
    with pytest.raises(UserError, match="num_hidden_layers"):
        load_model(str(tmp_path), TWO)


@pytest.mark.parametrize(("layout", "message"), [("0_Transformer", "0_Transformer"), ("adapter", "merge the adapter")])
def test_folders_that_hold_no_model_themselves_say_where_it_is(tmp_path, layout, message):
    """Prevents "check its files" where the model lies one folder further, or is not yet merged."""
    if layout == "adapter":
        (tmp_path / "adapter_config.json").write_text("{}")
    else:
        tiny.classifier(2).save_pretrained(tmp_path / layout)
        tiny.tokenizer().save_pretrained(tmp_path / layout)
    for load in (lambda: load_model(str(tmp_path), TWO), lambda: Encoder.load(str(tmp_path))):
        with pytest.raises(UserError, match=message):
            load()
