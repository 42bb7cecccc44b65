"""Models of every family that answer questions: the student has the teacher's head, and the same start and end."""

import pytest
import torch
import transformers

from distil_nlp.models import build_student
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from tests.helpers import tiny
from tests.helpers.encoders import ENCODERS, encoder

HEADS = ("ForQuestionAnsweringSimple", "ForQuestionAnswering")
"""XLM and FlauBERT have a plain head beside one with a beam search; `AutoModelForQuestionAnswering` takes the plain."""
FAMILIES = {
    name: next(head for head in HEADS if hasattr(transformers, name + head))
    for name in ENCODERS
    if name not in ("Albert", "Longformer") and any(hasattr(transformers, name + head) for head in HEADS)
}
"""ALBERT's layers share their weights, so that no student is made of some of them. Longformer's head does not run on
texts without its three separators, as the few tokens have none with which a run tries its models."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_has_the_head_of_its_teacher(family):
    """Prevents a head that starts anew in a family whose head has other names, or that gives no start and end."""
    teacher = encoder(family, FAMILIES[family])
    student, report = build_student(teacher, [1])
    of_head = [name for name in (*report.new, *report.dropped) if not name.startswith(f"{teacher.base_model_prefix}.")]
    assert not of_head
    student.eval()
    ids = torch.randint(5, 40, (2, 8), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    recorder = Recorder(student, SignalRequest(logits=True))
    with torch.no_grad():
        found = forward_with_signals(student, batch, {}).logits
    recorder.remove()
    with torch.no_grad():
        own = student(**batch)
    assert torch.equal(found, torch.stack([own.start_logits, own.end_logits], -1))


def test_distilbert_of_a_bert_that_answers_questions_keeps_its_head():
    """Prevents a trained head from being replaced by a random one."""
    teacher = tiny.reader(4)
    student, report = build_student(teacher, "every_other", architecture="distilbert")
    assert type(student).__name__ == "DistilBertForQuestionAnswering"
    assert report.new == []
    assert report.dropped == []
    assert torch.equal(student.qa_outputs.weight, teacher.qa_outputs.weight)
