"""Runs whose student knows some of its teacher's words, through the command line."""

import pytest
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.helpers import tiny
from tests.helpers.messages import one_line
from tests.helpers.runs import Place

OUTPUTS = ("objective.attention_kl=null",)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path).prepare()


def test_a_student_of_fewer_words_goes_through_a_whole_run(place, capsys):
    """Prevents embeddings of other words, and a tokenizer that is not saved with the student."""
    assert place.run(*OUTPUTS, "student.vocabulary={coverage: 0.6}", "evaluation.baselines=[no_distillation]") == 0
    said, block = " ".join(capsys.readouterr().out.split()), place.results["vocabulary"]
    whole = tiny.tokenizer()
    assert block["of"] == len(whole) > block["tokens"]
    assert 0.6 <= block["coverage"] < 1
    assert f"The student knows {block['tokens']} of its teacher’s {block['of']} tokens" in said
    assert block["texts"] + block["held_out_texts"] == 24
    student, tokenizer = (
        kind.from_pretrained(place.out / "student") for kind in (AutoModelForSequenceClassification, AutoTokenizer)
    )
    assert student.config.vocab_size == len(tokenizer) == block["tokens"]
    teacher = AutoModelForSequenceClassification.from_pretrained(place.folder / "teacher")
    assert student.num_parameters() < teacher.num_parameters()
    assert "of its teacher’s" in (place.out / "report" / "report.md").read_text()
    assert "of its teacher’s" in (place.out / "student" / "README.md").read_text()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "student.vocabulary={keep: 3}",
            "expected at least 19: special tokens, single characters or bytes, and their parts got 3",
        ),
        ("student.vocabulary={}", "one of keep (a number of tokens) and coverage"),
        ("student.vocabulary={keep: 40, coverage: 0.9}", "one of keep (a number of tokens) and coverage"),
        ("student.vocabulary={coverage: 1.2}", "student.vocabulary.coverage"),
    ],
)
def test_vocabularies_that_cannot_be_are_refused(place, override, message, capsys):
    """Prevents a vocabulary without special tokens, and a traceback."""
    assert place.run(*OUTPUTS, override) != 0
    assert message in one_line(capsys.readouterr().err).replace(" / ", " ")
    assert not (place.out / "student").exists()


def test_attention_between_tokens_is_refused(place, capsys):
    """Prevents attention of other tokens from being imitated."""
    assert place.run("student.vocabulary={keep: 40}") != 0
    assert "attention_kl" in one_line(capsys.readouterr().err)
