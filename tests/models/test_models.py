"""Students built from teachers, and the checks of models, vocabularies and classes against each other."""

import json

import pytest
import torch
import transformers

from distil_nlp.errors import UserError
from distil_nlp.models import (
    build_student,
    check_vocabulary,
    choose_layers,
    class_mapping,
    load_model,
    load_tokenizer,
    max_positions,
    size_of,
    start_from_checkpoint,
)
from distil_nlp.models.parameter_names import part_of
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from distil_nlp.tasks import Head
from distil_nlp.teachers.ensemble import Ensemble
from tests.helpers import tiny
from tests.helpers.families import model_of

TWO = Head("classification", ("no", "yes"), 2)


@pytest.mark.parametrize(
    ("choice", "depth", "expected"),
    [
        ("every_other", None, [1, 3, 5]),
        ("every_other", 2, [2, 5]),
        ("every_other", 4, [0, 2, 3, 5]),
        ("first", 3, [0, 1, 2]),
        ("last", 2, [4, 5]),
        ("random", 2, None),
        ([0, 0, 5], None, [0, 0, 5]),
        ("stack", 8, [0, 1, 2, 3, 4, 5, 0, 1]),
        ("interpolate", 8, [0, 0, 1, 2, 3, 3, 4, 5]),
        ("interpolate", 12, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        ("stack", 6, [0, 1, 2, 3, 4, 5]),
        ("random", 9, None),
    ],
)
def test_layers_are_chosen_as_papers_number_them(choice, depth, expected):
    """Prevents an off-by-one in which teacher layers are copied."""
    assert choose_layers(choice, 6, depth) == expected


@pytest.mark.parametrize(
    ("choice", "depth", "message"),
    [
        ("every_other", 7, r"stack or interpolate for a student of 7 .* the teacher's 6 layers / got every_other"),
        ("stack", 5, r"student.num_layers: expected at least the teacher's 6 for student.layers=stack / got 5"),
        ("interpolate", None, r"expected at least the teacher's 6 .* got none"),
        ([0, 6], None, r"numbers from 0 to 5 / got \[6\]"),
        ([0, 1], 3, r"student.num_layers=3 / got \[0, 1\]"),
    ],
)
def test_impossible_layers_are_refused(choice, depth, message):
    """Prevents an IndexError, or a student of another depth than was meant."""
    with pytest.raises(UserError, match=message):
        choose_layers(choice, 6, depth)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "Electra", "ModernBert", "MobileBert", "DebertaV2"])
def test_a_student_of_full_depth_is_the_teacher(family):
    """Prevents a part that is forgotten in copying: the same depth must give the same logits."""
    teacher = model_of(family)
    student, report = build_student(teacher, [0, 1, 2, 3])
    ids = torch.arange(5, 25).reshape(2, 10)
    torch.testing.assert_close(student.eval()(ids).logits, teacher(ids).logits)
    assert not report.new


def test_copied_layers_are_the_chosen_ones():
    """Prevents the first layers from being copied whatever the list says."""
    teacher = tiny.mlm_model(6)
    student, report = build_student(teacher, [1, 3, 5])
    student_blocks, teacher_blocks = student.bert.encoder.layer, teacher.bert.encoder.layer
    for student_layer, teacher_layer in enumerate([1, 3, 5]):
        copied, source = student_blocks[student_layer], teacher_blocks[teacher_layer]
        assert torch.equal(copied.output.dense.weight, source.output.dense.weight)
    assert student.config.num_hidden_layers == 3
    assert teacher.config.num_hidden_layers == 6
    assert str(report).startswith("student from teacher layers [1, 3, 5]: ")


def test_student_and_teacher_share_no_memory():
    """Prevents training the student from changing the teacher."""
    teacher = tiny.mlm_model(4)
    student, _ = build_student(teacher, [1, 3])
    addresses = {parameter.data_ptr() for parameter in teacher.parameters()}
    assert not addresses & {parameter.data_ptr() for parameter in student.parameters()}


def test_distilbert_folds_the_segment_in():
    """Prevents a constant shift of every embedding: full depth in DistilBERT classes gives BERT's logits."""
    teacher = tiny.mlm_model(4)
    torch.nn.init.normal_(teacher.bert.embeddings.token_type_embeddings.weight)
    student, report = build_student(teacher, [0, 1, 2, 3], architecture="distilbert")
    ids = torch.arange(5, 25).reshape(2, 10)
    torch.testing.assert_close(student.eval()(ids).logits, teacher(ids).logits, atol=1e-5, rtol=1e-4)
    assert type(student).__name__ == "DistilBertForMaskedLM"
    assert not report.new


def test_a_distilbert_classifier_says_that_its_head_is_new():
    """Prevents a classifier that reads a ReLU where it was trained on a tanh, passed off as copied."""
    _, report = build_student(tiny.classifier(4), [1, 3], architecture="distilbert")
    assert sorted(report.new) == [
        "classifier.bias",
        "classifier.weight",
        "pre_classifier.bias",
        "pre_classifier.weight",
    ]


def test_pooler_and_classifier_are_copied():
    """Prevents a task student that starts without its teacher's head."""
    teacher = tiny.classifier(4, num_labels=3)
    student, report = build_student(teacher, [1, 3])
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(student.bert.pooler.dense.weight, teacher.bert.pooler.dense.weight)
    assert not report.new


@pytest.mark.parametrize("architecture", ["same", "distilbert"])
@pytest.mark.parametrize(
    ("fresh", "parts"),
    [(["head"], {"head"}), (["embeddings"], {"embeddings"}), (["layers", "head"], {"layers", "head"}), ([], set())],
)
def test_fresh_parts_start_from_random_weights_and_no_others(architecture, fresh, parts):
    """Prevents a comparison of starts in which a part is copied that was said to be new."""
    teacher = tiny.classifier(4, 3)
    student, report = build_student(teacher, architecture=architecture, fresh=fresh)
    whole, plain = build_student(teacher, architecture=architecture)
    always = {part_of(name, student) for name in plain.new}
    assert {part_of(name, student) for name in report.new} == parts | always
    assert {name for name in report.copied if part_of(name, student) in parts} == set()
    assert len(report.new) + len(report.copied) == len(list(student.parameters()))
    copied = set(report.copied)
    for (name, own), other in zip(student.named_parameters(), whole.parameters(), strict=True):
        assert name not in copied or torch.equal(own, other)
        if name in report.new and own.ndim > 1:
            assert not torch.equal(own, other)


def test_the_parts_of_an_encoder_alone():
    """Prevents an encoder without a head, all of whose weights are taken for a head."""
    encoder = tiny.classifier(2, 3).bert
    parts = {name.split(".")[0]: part_of(name, encoder) for name, _ in encoder.named_parameters()}
    assert parts == {"embeddings": "embeddings", "encoder": "layers", "pooler": "head"}


def test_what_does_not_fit_is_new_and_named():
    """Prevents a narrower student that claims to hold its teacher's weights."""
    student, report = build_student(tiny.mlm_model(4), [1, 3], config_changes={"hidden_size": 16})
    assert student.config.hidden_size == 16
    assert "bert.embeddings.word_embeddings.weight" in report.new


def test_random_weights_are_random():
    """Prevents `random` from copying anything."""
    teacher = tiny.mlm_model(4)
    student, report = build_student(teacher, None, num_layers=2)
    assert not report.copied
    assert not torch.equal(
        student.bert.embeddings.word_embeddings.weight, teacher.bert.embeddings.word_embeddings.weight
    )


def test_a_bf16_teacher_gives_a_float32_student():
    """Prevents master weights in bf16."""
    student, _ = build_student(tiny.mlm_model(4).to(torch.bfloat16), [1, 3])
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"architecture": "distilbert"}, "BERT teacher / got roberta"),
        ({"config_changes": {"hiden_size": 3}}, "RobertaConfig / got hiden_size"),
        ({"config_changes": {"hidden_size": 30}}, "30"),
    ],
)
def test_impossible_students_are_refused(arguments, message):
    """Prevents a key without effect, or a traceback from deep inside a model."""
    with pytest.raises(UserError, match=message):
        build_student(model_of("Roberta"), [1, 3], **arguments)


def test_albert_layers_cannot_be_copied():
    """Prevents a "3-layer" student of a model whose layers are one."""
    with pytest.raises(UserError, match="AlbertForMaskedLM"):
        build_student(model_of("Albert"), [1, 3])


def test_vocabularies_are_compared_token_by_token():
    """Prevents equal sizes from passing for equal vocabularies."""
    tokenizer = tiny.tokenizer()
    check_vocabulary(tokenizer, tiny.tokenizer())
    swapped = dict(tokenizer.get_vocab())
    swapped["cat"], swapped["dog"] = swapped["dog"], swapped["cat"]
    with pytest.raises(UserError, match=r"2 differ \(for instance 'cat'"):
        check_vocabulary(tokenizer, transformers.BertTokenizerFast(vocab=swapped))


@pytest.mark.parametrize(
    ("labels", "order"), [(("No", "Yes"), (0, 1)), (("yes", "no"), (1, 0)), (None, (0, 1)), (("no", "maybe"), None)]
)
def test_labels_are_compared_by_name_and_order(labels, order):
    """Prevents MNLI's 43 %: every class taught as another one."""
    config = tiny.classifier(2).config
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    if order is None:
        with pytest.raises(UserError, match=r"no, maybe.*no, yes"):
            class_mapping(config, Head("classification", labels, 2), "teacher")
    else:
        assert class_mapping(config, Head("classification", labels, 2), "teacher").order == order
    with pytest.raises(UserError, match=r"expected 3 labels.*got 2"):
        class_mapping(config, Head("classification", ("a", "b", "c"), 3), "teacher")


def test_a_teacher_without_the_head_is_refused(tmp_path):
    """Prevents distilling from an untrained head, whose soft targets are noise."""
    tiny.mlm_model(2).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"trained classification head.*classifier"):
        load_model(str(tmp_path), TWO)
    model = load_model(str(tmp_path), TWO, new_head=True)
    assert model.config.id2label == {0: "no", 1: "yes"}
    assert not model.training


def test_a_trained_head_with_other_labels_is_refused(tmp_path):
    """Prevents a teacher of another task from teaching this one."""
    tiny.classifier(2, num_labels=3).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="expected 2 labels"):
        load_model(str(tmp_path), TWO)


def test_pickled_weights_are_refused(tmp_path):
    """Prevents running code that hides in a checkpoint."""
    model = tiny.mlm_model(2)
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"are a pickle.*save_pretrained.*model\.safetensors"):
        load_model(str(tmp_path), Head("mlm"))


def test_code_that_comes_with_a_model_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    """Prevents a stranger's Python on this machine, by default or by a `y` on a terminal."""
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\n")
    auto = {name: f"evil.{name}" for name in ("AutoConfig", "AutoModelForMaskedLM")}
    config = {"model_type": "evil", "auto_map": auto}
    (tmp_path / "config.json").write_text(json.dumps(config))
    tiny.tokenizer().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.A", "evil.B"]}}))
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("asked"))
    name = str(tmp_path)
    for load in (lambda: load_model(name, Head("mlm")), lambda: max_positions(name)):
        with pytest.raises(UserError, match="never run here"):
            load()
    load_tokenizer(name)  # by a class of transformers' own
    assert not (tmp_path / "owned").exists()


def test_a_missing_folder_is_said_at_once():
    """Prevents asking the Hub for a misspelt path."""
    with pytest.raises(UserError, match=r"\.\./nowhere, which does not exist"):
        load_tokenizer("../nowhere")


def test_no_network_is_said(monkeypatch):
    """Prevents a page of traceback where the network is down."""
    with pytest.raises(UserError, match=r"some-org/some-model.*HF_HUB_OFFLINE"):
        load_tokenizer("some-org/some-model")


def test_a_tokenizers_left_over_truncation_is_reset(tmp_path):
    """Prevents inputs cut and padded to 128 by settings left in tokenizer.json."""
    tokenizer = tiny.tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=4)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path))
    assert len(loaded("the cat sees the dog .")["input_ids"]) == 8


def test_a_student_can_start_from_a_checkpoint(tmp_path):
    """Prevents two-stage distillation from starting anew in its second stage."""
    model = tiny.classifier(2, seed=3)
    model.config.id2label, model.config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    model.save_pretrained(tmp_path)
    student, report = start_from_checkpoint(str(tmp_path), TWO)
    assert torch.equal(student.classifier.weight, model.classifier.weight)
    assert student.training
    assert not report.new


def test_sizes_count_tied_weights_once():
    """Prevents a student that seems larger than it is, and embeddings that are counted as layers."""
    model = tiny.mlm_model(2)
    size = size_of(model)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.embedding_parameters == (len(tiny.VOCABULARY) + 64 + 2) * 32
    assert size.size_mb == pytest.approx(size.parameters * 4 / 1e6, abs=0.01)
    half = size_of(build_student(tiny.mlm_model(4), [1, 3])[0]).encoder_parameters
    assert half * 2 == size_of(tiny.mlm_model(4)).encoder_parameters


@pytest.mark.parametrize(("family", "expected"), [("Bert", 64), ("Roberta", 62)])
def test_positions_that_can_be_used(tmp_path, family, expected):
    """Prevents inputs longer than the position table; RoBERTa's begins at 2."""
    model_of(family).config.save_pretrained(tmp_path)
    assert max_positions(str(tmp_path)) == expected


def test_an_ensemble_of_unlike_outputs_is_an_error():
    """Logits of unlike numbers of classes have no mean; other sizes may differ."""
    Ensemble([tiny.classifier(2, 3), tiny.classifier(4, 3, hidden_size=16, vocab_size=99)])
    with pytest.raises(UserError, match="got 2, 3 / their logits have no mean"):
        Ensemble([tiny.classifier(2, 2), tiny.classifier(2, 3)])


@pytest.mark.parametrize("kind", ["classifier", "mlm_model"])
def test_an_ensemble_gives_the_mean_of_its_logits(kind):
    """Prevents one member's logits, or a mean of unlike rows where the head runs on some."""
    first, second = getattr(tiny, kind)(4), getattr(tiny, kind)(2, seed=3)
    batch = {"input_ids": torch.arange(5, 21).view(2, 8), "token_type_ids": torch.ones(2, 8, dtype=torch.long)}
    expected = (first(**batch).logits + second(**batch).logits) / 2
    ensemble = Ensemble([first, second])
    torch.testing.assert_close(ensemble(**batch).logits, expected)
    is_mlm, head = kind == "mlm_model", torch.tensor([1, 9, 14])
    recorder = Recorder(
        ensemble, SignalRequest(True, frozenset({(3, "all")}), frozenset({1})), head_rows=is_mlm, projects=False
    )
    signals = forward_with_signals(ensemble, batch, {"head": head, "all": torch.arange(16)})
    logits = signals.vocabulary.logits(0, 3) if is_mlm else signals.logits
    torch.testing.assert_close(logits, expected.flatten(0, 1)[head] if is_mlm else expected)
    states = first(**batch, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(signals.hidden[3, "all"], states.flatten(0, 1), atol=1e-5, rtol=1e-4)
    recorder.remove()
    torch.testing.assert_close(ensemble(**batch).logits, expected)


def test_a_student_of_a_language_model_is_fine_tuned_on_other_tasks(tmp_path):
    """Prevents a way to NER that the docs name and that does not work: only the new head is to be learnt."""
    student, _ = build_student(tiny.mlm_model(4))
    student.save_pretrained(tmp_path)
    for kind in (transformers.AutoModelForTokenClassification, transformers.AutoModelForQuestionAnswering):
        model, loading = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert {name.rpartition(".")[0] for name in loading["missing_keys"]} <= {"classifier", "qa_outputs"}
        assert model.config.num_hidden_layers == 2
