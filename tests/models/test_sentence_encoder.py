"""Sentence encoders: their settings, their students, and the folders they are read from and saved to."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertModel

from distil_nlp.errors import UserError
from distil_nlp.models import build_student, load_model, load_tokenizer, save_sentence_encoder
from distil_nlp.models.sentence_encoder import SETTINGS, match_length
from distil_nlp.models.student import start_from_checkpoint
from distil_nlp.tasks import Head
from tests.helpers import tiny
from tests.helpers.encoders import encoder
from tests.helpers.sentences import save_teacher, sentence_encoder

HEAD = Head("embedding")
TEXTS = [*tiny.SENTENCES, "cat"]
DENSE = {"dense": True, "dimension": 8, "activation": "Tanh"}


def vectors(model, texts=TEXTS) -> torch.Tensor:
    batch = tiny.tokenizer()(list(texts), padding=True, return_tensors="pt")
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.fixture
def library():
    """The module sentence_transformers; CI must not skip it."""
    if os.environ.get("CI"):
        import sentence_transformers

        return sentence_transformers
    return pytest.importorskip("sentence_transformers")


def change(file: Path, **fields) -> None:
    file.write_text(json.dumps({**(json.loads(file.read_text()) if file.exists() else {}), **fields}))


# Folders ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"pooling": "cls", "normalize": False}, {"pooling": "max"}, DENSE])
def test_a_folder_brings_back_the_model(tmp_path, settings):
    """Prevents a pooling, a Dense layer or a normalisation that is not written, or not read."""
    saved = save_teacher(tmp_path, settings=settings)
    loaded = load_model(str(tmp_path), HEAD)
    assert torch.equal(vectors(loaded), vectors(saved))
    assert loaded.settings == saved.settings
    lengths = vectors(loaded).norm(dim=1)
    assert torch.allclose(lengths, torch.ones(len(TEXTS))) == saved.settings.normalize


def test_plain_transformers_loads_the_encoder(tmp_path):
    """Prevents names with a prefix, fields of this tool in config.json, and a pooler that starts anew."""
    saved = save_teacher(tmp_path, settings=DENSE)
    plain, info = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(plain) is BertModel
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert SETTINGS not in json.loads((tmp_path / "config.json").read_text())
    assert all(torch.equal(plain.state_dict()[name], weight) for name, weight in saved.bert.state_dict().items())
    assert hasattr(saved.config, SETTINGS)


@pytest.mark.parametrize("settings", [{}, {"pooling": "cls", "normalize": False}, {"pooling": "max"}, DENSE])
def test_sentence_transformers_encodes_to_the_same_vectors(tmp_path, library, settings):
    """Prevents a folder that the library reads otherwise: its own vectors are compared."""
    saved = save_teacher(tmp_path, settings=settings)
    model = library.SentenceTransformer(str(tmp_path), device="cpu")
    assert np.abs(model.encode(TEXTS) - vectors(saved).numpy()).max() < 1e-6


def test_a_folder_of_sentence_transformers_is_read(tmp_path, library):
    """Prevents a layout of the installed version that is not understood: it has written this one itself."""
    save_teacher(tmp_path / "ours", settings={**DENSE, "pooling": "max"})
    model = library.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    model.save(str(tmp_path / "theirs"))
    loaded = load_model(str(tmp_path / "theirs"), HEAD)
    assert np.abs(model.encode(TEXTS) - vectors(loaded).numpy()).max() < 1e-6


def test_a_folder_without_modules_has_the_recipes_settings(tmp_path):
    """Prevents a setting without effect; the default is the mean, of length 1."""
    BertModel(tiny.bert_config(2)).save_pretrained(tmp_path)
    default = load_model(str(tmp_path), HEAD).settings
    assert (default.pooling, default.normalize, default.dimension) == ("mean", True, 32)
    own = load_model(str(tmp_path), Head("embedding", pooling="cls", normalize=False)).settings
    assert (own.pooling, own.normalize) == ("cls", False)


def test_a_file_without_a_pooler_gets_none(tmp_path):
    """Prevents random weights in a student's file that nothing reads."""
    model = BertModel(tiny.bert_config(2), add_pooling_layer=False)
    model.save_pretrained(tmp_path)
    assert load_model(str(tmp_path), HEAD).bert.pooler is None


def _weighted(folder):
    change(folder / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_weightedmean_tokens=True)


def _two_poolings(folder):
    change(folder / "1_Pooling" / "config.json", pooling_mode_cls_token=True)


def _other_module(folder):
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Norm", "type": "sentence_transformers.models.LayerNorm"})
    (folder / "modules.json").write_text(json.dumps(modules))


def _prompt(folder):
    change(folder / "config_sentence_transformers.json", default_prompt_name="query", prompts={"query": "query: "})


def _lower_case(folder):
    change(folder / "sentence_bert_config.json", do_lower_case=True)


def _own_activation(folder):
    change(folder / "2_Dense" / "config.json", activation_function="os.system")


def _pickle(folder):
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")


def _no_json(folder):
    (folder / "modules.json").write_text("[")


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (_weighted, "expected mean or cls or max / got weightedmean"),
        (_two_poolings, "got cls, mean"),
        (_other_module, "LayerNorm"),
        (_prompt, "no default_prompt_name"),
        (_lower_case, "no do_lower_case"),
        (_own_activation, "code that comes with a model is never run here"),
        (_pickle, "model.safetensors"),
        (_no_json, "expected JSON"),
    ],
)
def test_what_cannot_be_distilled_is_told(tmp_path, breaks, message):
    """Prevents a student that is taught other vectors than the teacher gives."""
    save_teacher(tmp_path, settings=DENSE)
    breaks(tmp_path)
    with pytest.raises(UserError) as caught:
        load_model(str(tmp_path), HEAD)
    assert message in str(caught.value)


def test_a_recipe_that_contradicts_the_folder_is_refused(tmp_path):
    """Prevents a pooling that the model was not trained for."""
    save_teacher(tmp_path)
    with pytest.raises(UserError, match=r"data\.pooling: expected mean, as the folder .* says / got cls"):
        load_model(str(tmp_path), Head("embedding", pooling="cls"))


# Students ---------------------------------------------------------------------------------------------------


def test_a_student_has_its_teachers_layers_dense_and_pooling():
    """Prevents a Dense layer that starts anew where it fits."""
    teacher = sentence_encoder(4, settings={**DENSE, "pooling": "cls"})
    student, report = build_student(teacher, num_layers=2)
    assert report.layers == [1, 3]
    assert report.new == []
    assert student.settings == teacher.settings
    assert torch.equal(student.dense.weight, teacher.dense.weight)
    whole, _ = build_student(teacher, [0, 1, 2, 3])
    assert torch.equal(vectors(whole), vectors(teacher))


def test_a_narrower_student_has_a_dense_layer_to_the_teachers_length(tmp_path):
    """Prevents vectors that do not compare with the teacher's; the layer is kept in the folder."""
    teacher = sentence_encoder(4)
    student, report = build_student(teacher, num_layers=2, config_changes={"hidden_size": 16, "intermediate_size": 32})
    assert student.dense.weight.shape == (32, 16)
    assert "dense.weight" in report.new
    save_sentence_encoder(student, student.state_dict(), tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert torch.equal(vectors(load_model(str(tmp_path), HEAD)), vectors(student))


def test_a_checkpoint_of_another_width_gets_a_dense_layer(tmp_path):
    """Prevents a student.name whose vectors have another length than the teacher's."""
    BertModel(tiny.bert_config(2, hidden_size=16, intermediate_size=32)).save_pretrained(tmp_path)
    student, report = start_from_checkpoint(str(tmp_path), HEAD)
    match_length(student, sentence_encoder(4), report)
    assert report.new == ["dense.weight", "dense.bias"]
    assert vectors(student).shape == (len(TEXTS), 32)


def test_distilbert_classes_take_the_dense_layer_too():
    """Prevents a conversion of the encoder alone."""
    teacher = sentence_encoder(4, settings=DENSE)
    student, report = build_student(teacher, [0, 1, 2, 3], architecture="distilbert")
    assert report.new == []
    assert torch.allclose(vectors(student), vectors(teacher), atol=1e-5)


@pytest.mark.parametrize("family", ["Roberta", "ModernBert", "MPNet", "DebertaV2", "DistilBert"])
def test_other_families(tmp_path, family):
    """Prevents arguments that BERT alone has, such as segments and poolers."""
    encoder(family, "Model").save_pretrained(tmp_path)
    model = load_model(str(tmp_path), HEAD)
    student, report = build_student(model, num_layers=1)
    assert report.new == []
    words = torch.arange(5, 17).view(2, 6)
    assert student.eval()(input_ids=words, attention_mask=torch.ones_like(words)).logits.shape == (2, 32)
    folder = tmp_path / "student"
    save_sentence_encoder(student, student.state_dict(), folder)
    again = load_model(str(folder), HEAD)
    assert torch.equal(again(input_ids=words).logits, student(input_ids=words).logits)


def test_the_tokenizer_of_a_folder_is_its_own(tmp_path):
    """Prevents a folder that this tool itself cannot read again."""
    save_teacher(tmp_path)
    assert load_tokenizer(str(tmp_path)).get_vocab() == tiny.tokenizer().get_vocab()
