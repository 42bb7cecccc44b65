"""Students deeper or wider than their teacher: where they start as it, where not, and what is said of it."""

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.pkd import PKD
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student
from distil_nlp.models.trial import trial_batch
from distil_nlp.objective import ModelShape
from tests.helpers import tiny
from tests.helpers.families import classifier_of, model_of
from tests.helpers.training import task_rows, trainer

DOUBLED = {"hidden_size": 64, "num_attention_heads": 8}
HALF_MORE = {"hidden_size": 48, "num_attention_heads": 6}
PRE_NORM = ("ModernBert", "EuroBert", "MegatronBert", "RobertaPreLayerNorm", "XLMRobertaXL")


def largest_difference(student, teacher):
    batch = trial_batch(teacher)
    with torch.no_grad():
        return float((student.eval()(**batch).logits - teacher(**batch).logits).abs().max())


@pytest.mark.parametrize("layers", ["stack", "interpolate", [0, 1, 1, 1, 2, 3]])
@pytest.mark.parametrize("family", PRE_NORM)
def test_a_deeper_student_is_its_teacher_where_norms_come_first(family, layers):
    """Prevents added blocks that change the states where they need not."""
    teacher = classifier_of(family)
    depth = None if isinstance(layers, list) else 7
    student, report = build_student(teacher, layers, num_layers=depth)
    assert largest_difference(student, teacher) <= 1e-5
    assert report.logit_difference <= 1e-5
    assert report.start.startswith("starts as the teacher")
    student(**trial_batch(student)).logits.sum().backward()
    unlearning = [
        name for name, weight in student.named_parameters() if "layer" in name and weight.grad is not None
        and weight.ndim == 2 and not weight.any() and not weight.grad.any()
    ]  # fmt: skip
    assert not unlearning  # a block whose projections start at 0 leaves 0


def test_bert_does_not_start_as_its_teacher_and_says_so():
    """Prevents a claim of function-preserving depth where norms come after the sums; copies are left as they are."""
    teacher = classifier_of("Bert")
    student, report = build_student(teacher, "stack", num_layers=6)
    found = largest_difference(student, teacher)
    assert found > 1e-3
    assert report.logit_difference == pytest.approx(found, rel=1e-3)
    assert report.start.startswith("does not start as the teacher (logits differ by up to 0.0")
    assert "norms come after the sums" in report.start
    assert str(report).endswith(f"; it {report.start}")
    ours, theirs = student.bert.encoder.layer, teacher.bert.encoder.layer
    assert torch.equal(ours[5].output.dense.weight, theirs[1].output.dense.weight)
    assert torch.equal(ours[4].attention.output.dense.bias, theirs[0].attention.output.dense.bias)


@pytest.mark.parametrize("make", [classifier_of, model_of])
@pytest.mark.parametrize("family", ["Bert", "Roberta", "ModernBert", "DebertaV2"])
def test_a_student_twice_as_wide_is_its_teacher(family, make):
    """Prevents neurons that are read twice: in linear layers, and in a vocabulary's table tied to the embeddings."""
    if (family, make) == ("DebertaV2", classifier_of):
        return  # its convolution is not duplicated
    teacher = make(family)
    student, report = build_student(teacher, [0, 1, 2, 3], config_changes=DOUBLED | {"intermediate_size": 96})
    assert student.config.hidden_size == 64
    assert largest_difference(student, teacher) <= 1e-5
    assert report.start.startswith("starts as the teacher")
    assert report.new == []
    assert len(report.widened) > len(report.copied) / 2
    assert ("learn alike" in report.start) == (family == "ModernBert")  # which has no dropout


def test_widening_is_that_of_the_paper():
    """U[i, j] = W[g(i), g(j)] / c(g(j)), against loops in float64, where the counts are unequal."""
    teacher = classifier_of("Bert")
    changes = HALF_MORE | {"intermediate_size": 100}
    student, report = build_student(teacher, [0, 1, 2, 3], config_changes=changes)
    theirs = teacher.bert.encoder.layer[2].intermediate.dense.weight.double()
    ours = student.bert.encoder.layer[2].intermediate.dense.weight
    counts = [sum(other % 32 == j % 32 for other in range(48)) for j in range(48)]
    for i in range(0, 100, 7):
        for j in range(48):
            assert ours[i, j].item() == pytest.approx(float(theirs[i % 64, j % 32] / counts[j]), rel=1e-6)
    norm = student.bert.encoder.layer[2].output.LayerNorm.weight
    assert torch.equal(norm, teacher.bert.encoder.layer[2].output.LayerNorm.weight[torch.arange(48) % 32])
    assert report.logit_difference > 1e-3
    assert "its width of 48 is no whole multiple of the teacher's 32" in report.start


@pytest.mark.parametrize("family", ["Bert", "ModernBert", "MPNet", "DebertaV2"])
def test_more_feed_forward_units_always_start_as_the_teacher(family):
    """Prevents a claim of width alone: units pass no norm, whatever their number."""
    teacher = model_of(family)
    student, report = build_student(teacher, [0, 1, 2, 3], config_changes={"intermediate_size": 87})
    assert largest_difference(student, teacher) <= 1e-5
    assert report.start.startswith("starts as the teacher")


def test_deeper_and_wider_at_once():
    """Prevents one kind of growth from undoing the other."""
    teacher = model_of("ModernBert")
    student, report = build_student(teacher, "interpolate", num_layers=6, config_changes=DOUBLED)
    assert largest_difference(student, teacher) <= 1e-5
    assert report.start.startswith("starts as the teacher")


def test_a_family_that_cannot_be_widened_has_new_weights_and_says_so():
    """Prevents copies in places where they mean something else, such as a convolution."""
    _, report = build_student(classifier_of("ConvBert"), [0, 1, 2, 3], config_changes=DOUBLED)
    assert report.widened == []
    assert f"{len(report.new)} of its tensors are new" in report.start


def test_a_smaller_student_reports_no_start():
    """Prevents a warning for what every usual student is."""
    for changes in ({}, {"hidden_size": 16}, {"hidden_size": 16, "intermediate_size": 128}):
        _, report = build_student(classifier_of("Bert"), [1, 3], config_changes=changes)
        assert (report.start, report.logit_difference, report.widened) == (None, None, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"config_changes": {"hidden_size": 64}}, r"num_attention_heads: expected 8 for a width of 64.*got 4"),
        ({"config_changes": {"hidden_size": 60}}, r"hidden_size: expected a multiple of 8, .*take 56 or 64"),
        (
            {"architecture": "distilbert", "config_changes": DOUBLED},
            r"distilbert: expected a student no deeper or wide",
        ),
        ({"architecture": "distilbert", "layers": "stack", "num_layers": 6}, r"no deeper .* got 6 layers of 4"),
    ],
)
def test_impossible_growth_is_refused(arguments, message):
    """Prevents a student whose attention is sharper than its teacher's, and errors from deep inside a model."""
    with pytest.raises(UserError, match=message):
        build_student(tiny.classifier(4), **{"layers": "every_other", "num_layers": 4} | arguments)


def test_random_weights_may_have_any_shape():
    """Prevents refusal where nothing is copied, and lists by layer that run out."""
    student, _ = build_student(model_of("ModernBert"), "random", num_layers=6, config_changes={"hidden_size": 64})
    assert (student.config.num_hidden_layers, len(student.config.layer_types)) == (6, 6)


def test_a_deeper_students_layers_are_paired_at_the_same_depth():
    """Prevents embeddings that pass for a block: each of the teacher's has one partner, the last with the last."""
    small, large = ModelShape(3, 8, 2), ModelShape(8, 8, 2)
    expected = {
        "uniform": [(0, 1), (1, 4), (2, 7)],
        "last": [(2, 7)],
        "all": [(-1, -1), (0, 1), (1, 4), (2, 7)],
        "skip": [(0, 1), (1, 4)],
        "middle": [(1, 4)],
    }
    for layers, pairs in expected.items():
        term = HiddenMSE(layers=layers)
        term.bind("mlm", small, large)
        assert term.pairs == pairs
    with pytest.raises(UserError, match=r"pkd.layers: .* got skip and a teacher of 1"):
        PKD(layers="skip").bind("mlm", ModelShape(1, 8, 2), large)


def test_a_larger_student_learns_from_soft_targets_and_states(tmp_path):
    """Prevents terms that only fit students smaller than their teacher."""
    teacher = tiny.classifier(2)
    student, _ = build_student(teacher, "interpolate", num_layers=5, config_changes=DOUBLED)
    before = student.classifier.weight.clone()
    run = trainer(
        tmp_path, student, teacher, [SoftTargetKL(1.0), HiddenMSE(1.0, "all")], kind="classification", rows=task_rows()
    )
    run.train()
    assert not torch.equal(run.detach().classifier.weight, before)
