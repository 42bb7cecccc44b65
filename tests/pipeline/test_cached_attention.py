"""Attention that a cache cannot restore is refused before the teacher is fine-tuned for hours."""

import pytest

from tests.helpers import tiny
from tests.helpers.families import classifier_of
from tests.helpers.messages import one_line
from tests.helpers.runs import Place


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


@pytest.mark.parametrize(
    ("family", "fields", "problem"),
    [
        ("MPNet", {}, "whole attention maps"),
        ("ModernBert", {"local_attention": 4}, "whose queries attend to different keys"),
    ],
)
def test_refused_before_the_teacher_is_fine_tuned(place, capsys, family, fields, problem):
    place.teacher(classifier_of(family, vocab_size=len(tiny.VOCABULARY), **fields))
    assert place.run("teacher.cache={}", "teacher.finetune={max_steps: 1}") == 2
    assert problem in one_line(capsys.readouterr().err)
    assert not list((place.folder / "teachers").rglob("*.safetensors"))


def test_attention_of_all_keys_is_cached(place):
    assert place.run("teacher.cache={}", "teacher.finetune={max_steps: 1}", "training.max_steps=1") == 0
