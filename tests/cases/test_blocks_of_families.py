"""Blocks and their states in every way in which families lay them out, and students made of some of them."""

import logging
import re

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.evaluation.fidelity import compare_models
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student, size_of
from distil_nlp.models.architecture import layer_stack, stack_prefixes
from distil_nlp.models.trial import trial_batch, undisturbed
from distil_nlp.objective import ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.trial import try_alone, try_models
from distil_nlp.recipe import Recipe
from distil_nlp.recipe.sections import StudentSection
from distil_nlp.signals.probe import say_once
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import EMBEDDINGS, SignalRequest, forward_with_signals
from tests.helpers.families import CLASSIFIERS, LAYERS, classifier_of

pytestmark = pytest.mark.integration

CHOSEN = (1, 3)
UNSEEN = ("Canine", "Funnel", "Reformer", "SqueezeBert")
"""Families whose blocks' states are not those of the tokens, or not to be seen."""
NOT_COPIED = ("Albert", "Funnel")
CORE = ("DebertaV2", "Flaubert", "Longformer", "MobileBert", "ModernBert", "XLNet")
"""One family of each layout: a convolution beside a block, lists of parts, padding within, lists in a block, a first
block of its own, length first."""


def families(chosen):
    """Return all families as parameters, those outside the core marked as slow."""
    return [pytest.param(name, marks=() if name in CORE else pytest.mark.slow) for name in chosen]


def ragged(length=13):
    ids = torch.randint(5, 100, (4, length), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(length) < torch.tensor([[length], [6], [9], [length - 1]])
    return {"input_ids": ids.where(mask, torch.tensor(0)), "attention_mask": mask.long()}


def assert_states_are_its_own(model, inputs):
    depth, length = len(layer_stack(model)), inputs["input_ids"].shape[1]
    tokens = inputs["attention_mask"].flatten().nonzero().flatten()
    with undisturbed(model):
        own = model(**inputs, output_hidden_states=True)
    layers = range(EMBEDDINGS, depth)
    recorder = Recorder(model, SignalRequest(True, frozenset((layer, "all") for layer in layers)))
    with undisturbed(model):
        seen = forward_with_signals(model, inputs, {"all": tokens})
    recorder.remove()
    for layer in layers:
        expected = own.hidden_states[layer + 1][:, :length].flatten(0, 1)[tokens]
        torch.testing.assert_close(seen.hidden[layer, "all"], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen.logits, own.logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", families(name for name in CLASSIFIERS if name not in UNSEEN))
def test_states_are_those_of_their_tokens(family):
    """Prevents states of other tokens: padded within the forward, length first, or a block's part for the block."""
    assert_states_are_its_own(classifier_of(family), ragged())


@pytest.mark.parametrize("length", [29, 31, 38])
def test_states_of_long_inputs_of_bigbird(length):
    """Prevents other tokens once BigBird has padded to its blocks: short inputs are attended to in full."""
    model = classifier_of("BigBird")
    assert_states_are_its_own(model, ragged(length))
    assert model.base_model.attention_type == "block_sparse"  # the trial, which is short, has not switched it


@pytest.mark.parametrize("family", UNSEEN)
def test_states_that_cannot_be_had_are_refused_at_the_start(family):
    """Prevents a comparison of other tokens than terms say, and a failure in the first step."""
    model = classifier_of(family)
    with pytest.raises(UserError, match=r"one state for each token|stack of 4 layers") as error:
        Recorder(model, SignalRequest(True, frozenset({(1, "all")})))
    assert error.value.fix
    assert not [one for one in model.modules() if one._forward_hooks or one._forward_pre_hooks]


@pytest.mark.parametrize("family", ["FNet", "Longformer", "XLM", "Yoso", "SqueezeBert"])
def test_maps_are_the_models_own_or_refused_at_the_start(family):
    """Prevents a message about SDPA, or one in the first step, where a family shows no maps."""
    model, request = classifier_of(family), SignalRequest(True, attention=frozenset({0, 2}))
    if family != "SqueezeBert":
        with pytest.raises(UserError, match="neither calls a registered function nor drops out probabilities"):
            Recorder(model, request)
        return
    Recorder(model, request)
    inputs = ragged()
    seen = forward_with_signals(model, inputs, {"all": torch.arange(4)})
    scores = model(**inputs, output_attentions=True).attentions  # its own are before the softmax
    torch.testing.assert_close(seen.attention[2].log_probabilities().exp(), scores[2].softmax(-1), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", families(name for name in CLASSIFIERS if name not in NOT_COPIED))
def test_parts_of_a_block_come_from_one_block(family):
    """Prevents attention of one block with the feed-forward part of another."""
    teacher = classifier_of(family)
    student, report = build_student(teacher, list(CHOSEN))
    theirs, prefixes, unlike = teacher.state_dict(), "|".join(map(re.escape, stack_prefixes(teacher))), []
    for name, ours in student.state_dict().items():
        origin = re.sub(rf"^({prefixes})(\d+)", lambda match: f"{match[1]}{CHOSEN[int(match[2])]}", name)
        if not (origin in theirs and torch.equal(ours, theirs[origin])):
            unlike.append(name)
    folded = {"ModernBert": ["Wqkv"], "ModernBertDecoder": ["q_proj", "k_proj", "v_proj"]}.get(family, [])
    assert unlike == [f"model.layers.0.attn.{name}.weight" for name in folded] or unlike == report.new
    assert size_of(student).encoder_parameters / size_of(teacher).encoder_parameters == pytest.approx(0.5, abs=0.04)
    inputs, whole = trial_batch(student), build_student(teacher, list(range(LAYERS)))[0].eval()
    torch.testing.assert_close(whole(**inputs).logits, teacher(**inputs).logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["ModernBert", "ModernBertDecoder"])
def test_a_first_block_of_its_own_neither_loses_nor_gains_a_norm(family):
    """Prevents attention that reads embeddings without its norm, and one that reads them through another's."""
    teacher = classifier_of(family)
    torch.nn.init.constant_(teacher.model.embeddings.norm.weight, 3.0)
    inputs, layers = ragged(), teacher.model.layers
    later, _ = build_student(teacher, [2, 3])
    read = teacher.model.embeddings(inputs["input_ids"])
    for name in ("Wqkv",) if family == "ModernBert" else ("q_proj", "k_proj", "v_proj"):
        expected = getattr(layers[2].attn, name)(layers[2].attn_norm(read))
        found = getattr(later.model.layers[0].attn, name)(read)
        torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-2)
    assert build_student(teacher, [2, 3])[1].dropped == ["model.layers.2.attn_norm.weight"]
    moved, report = build_student(teacher, [0, 0])
    assert torch.equal(moved.model.layers[1].attn_norm.weight, teacher.model.embeddings.norm.weight)
    assert not report.dropped


def test_what_found_no_place_is_listed():
    """Prevents a student that lacks parts of its teacher without a word."""
    teacher, fewer = classifier_of("Bert"), {"intermediate_size": 8}
    whole, narrow = (build_student(teacher, [1], config_changes=changes)[1] for changes in ({}, fewer))
    assert whole.dropped == []
    assert "found no place" not in str(whole)
    assert len(narrow.dropped) == 3
    assert "3 of the teacher's found no place of their own (bert.encoder.layer.1.intermediate.dense.weight" in str(
        narrow
    )
    assert narrow.to_dict()["dropped"] == narrow.dropped
    distilbert = build_student(classifier_of("Bert"), [1, 3], architecture="distilbert")[1]
    assert {name.split(".")[0] for name in distilbert.dropped} == {"bert", "classifier"}
    assert all("pooler" in name or "classifier" in name for name in distilbert.dropped)


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=() if name in ("DebertaV2", "Esmc", "SqueezeBert", "XLNet") else pytest.mark.slow)
        for name in CLASSIFIERS
        if name not in (*NOT_COPIED, "Lilt", "LayoutLMv3")
    ],
)
def test_a_narrower_student_runs_and_can_be_saved(family, tmp_path):
    """Prevents fields that must go with the width from staying behind, which fails in the first step, or in saving."""
    student, _ = build_student(classifier_of(family), list(CHOSEN), config_changes={"hidden_size": 16})
    inputs = trial_batch(student.eval())
    student.save_pretrained(tmp_path)
    again = type(student).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, student(**inputs).logits, atol=1e-5, rtol=1e-4)


def test_a_width_that_does_not_run_is_refused_with_the_fields_at_fault():
    """Prevents a traceback of shapes where no rule tells which field goes with the width."""
    with pytest.raises(UserError, match=r"student.config: .*hidden_size.*RuntimeError") as error:
        build_student(classifier_of("LayoutLMv3"), list(CHOSEN), config_changes={"hidden_size": 16})
    assert "rel_pos_bins" not in str(error.value)


@pytest.mark.parametrize(
    ("family", "field"),
    [("Longformer", "attention_window"), ("ModernBert", "layer_types"), ("Reformer", "attn_layers")],
)
def test_lists_by_layer_go_with_the_depth(family, field):
    """Prevents a default student that is refused for a list which nobody has written, and local layers made global."""
    changes = {field: [4, 8, 12, 16]} if family == "Longformer" else {}
    teacher = classifier_of(family, **changes)
    student, _ = build_student(teacher, list(CHOSEN))
    expected = [getattr(teacher.config, field)[i] for i in CHOSEN]
    assert list(getattr(student.config, field)) == expected
    assert list(getattr(type(student.config)(**student.config.to_dict()), field)) == expected


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_shared_layers_are_seen_as_often_as_they_run(groups):
    """Prevents states of another layer, or a student that cannot be made, where groups of layers share a block."""
    teacher = classifier_of("Albert", num_hidden_groups=groups)
    assert len({id(block) for block in layer_stack(teacher)}) == groups
    assert_states_are_its_own(teacher, ragged())
    student, _ = build_student(teacher, None, num_layers=2)
    assert_states_are_its_own(student.eval(), ragged())


def recipe(**data):
    sections = {"teacher": {"name": "x"}, "objective": {"soft_target_kl": {}}, "training": {}}
    return Recipe(**sections, data={"path": "x", "task": "classification", "text_columns": ["text"], **data})


def objective(*terms):
    return Objective([SoftTargetKL(1.0), *terms], "classification")


def test_models_are_tried_whole_before_anything_is_trained():
    """Prevents failing after the teacher has been fine-tuned, or once all is trained."""
    teacher = classifier_of("Bert")
    student, _ = build_student(teacher, list(CHOSEN))
    before, weights = torch.get_rng_state(), {name: value.clone() for name, value in student.state_dict().items()}
    try_models(teacher, student, objective(HiddenMSE(1.0)), recipe())
    assert torch.equal(before, torch.get_rng_state())
    assert student.training
    assert not teacher.training
    assert all(torch.equal(value, weights[name]) for name, value in student.state_dict().items())
    for model in (teacher, student):
        assert not [one for one in model.modules() if one._forward_hooks or one._forward_pre_hooks]


def test_a_model_that_needs_a_language_or_a_length_says_so():
    """Prevents a traceback while the teacher is scored (XMOD), or in the first step (Reformer)."""
    model = classifier_of("Xmod")
    model.config.default_language = None
    with pytest.raises(UserError, match="set_default_language"):
        try_alone(model)
    teacher = classifier_of("Reformer")
    student, _ = build_student(teacher, list(CHOSEN))
    with pytest.raises(UserError, match="chunk_length 8"):
        try_models(teacher, student, objective(), recipe())
    try_models(teacher, student, objective(), recipe(pad_to_multiple_of=8))


def test_sizes_that_a_configuration_does_not_have_are_named():
    """Prevents an AttributeError for a model without a stack of layers."""
    with pytest.raises(UserError, match=r"PerceiverConfig without num_hidden_layers, hidden_size"):
        ModelShape.of(__import__("transformers").PerceiverConfig())


@pytest.mark.parametrize("family", ["SqueezeBert", "Canine"])
def test_what_cannot_be_compared_is_said_and_the_rest_is_measured(family):
    """Prevents a run that fails, or fails again when it is started again, once its student is trained."""
    teacher = classifier_of(family)
    student, _ = build_student(teacher, list(CHOSEN))
    try_models(teacher, student, objective(), recipe())
    rows = [{"input_ids": [5, 6, 7 + i, 8], "labels": i % 2} for i in range(4)]

    def collate(features):
        ids = torch.tensor([row["input_ids"] for row in features])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 0, 1])}

    found = compare_models(teacher, student, "classification", rows, collate)
    assert "one state for each token" in found["cka_not_measured"]
    assert "cka" not in found
    assert 0 <= found["agreement"] <= 1


def test_padding_that_changes_states_is_said():
    """Prevents scores that depend on which rows share a batch without a word."""
    lines, handler, logger = [], logging.Handler(), logging.getLogger("distil_nlp")
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    say_once.cache_clear()
    try:
        for family in ("FNet", "FNet", "Bert"):
            Recorder(classifier_of(family), SignalRequest(hidden=frozenset({(1, "all")})))
    finally:
        logger.removeHandler(handler)
    assert [line.split(":")[0] for line in lines] == ["FNetModel"]


def test_the_section_of_a_student_takes_no_other_depth():
    """Prevents a depth under another of its names, which would contradict the layers that are copied."""
    section = StudentSection(config={"n_layer": 1})
    with pytest.raises(UserError, match="n_layer"):
        build_student(classifier_of("XLNet"), list(CHOSEN), config_changes=section.config)
