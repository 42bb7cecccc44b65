"""Taggers of every family: the student has the teacher's head, which gives the same on chosen tokens as on all."""

import pytest
import torch
import transformers

from distil_nlp.models import build_student
from distil_nlp.signals.recorder import Recorder
from distil_nlp.signals.types import SignalRequest, forward_with_signals
from tests.helpers import tiny
from tests.helpers.encoders import ENCODERS, encoder

FAMILIES = [name for name in ENCODERS if hasattr(transformers, f"{name}ForTokenClassification") and name != "Albert"]
"""ALBERT's layers share their weights, so that no student is made of some of them."""


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_has_the_head_of_its_teacher(family):
    """Prevents a head that starts anew in a family whose head has other names, or that is not one of tokens."""
    teacher = encoder(family, "ForTokenClassification", num_labels=3)
    student, report = build_student(teacher, [1])
    of_head = [name for name in (*report.new, *report.dropped) if not name.startswith(f"{teacher.base_model_prefix}.")]
    assert of_head == []
    assert student.config.num_labels == 3
    ids = torch.arange(5, 17).view(2, 6)
    chosen = torch.tensor([1, 3, 8])
    student.eval()
    with torch.no_grad():
        own = student(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.flatten(0, 1)[chosen]
        recorder = Recorder(student, SignalRequest(logits=True), head_rows=True)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        found = forward_with_signals(student, batch, {"head": chosen}).logits
    recorder.remove()
    assert torch.allclose(found, own, atol=1e-5)


def test_distilbert_of_a_bert_that_tags_words_keeps_its_classifier():
    """Prevents a trained classifier of words from being replaced by a random one."""
    teacher = tiny.tagger(4)
    student, report = build_student(teacher, "every_other", architecture="distilbert")
    assert type(student).__name__ == "DistilBertForTokenClassification"
    assert report.new == []
    assert report.dropped == []
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
