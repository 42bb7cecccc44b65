"""Windows of questions in SQuAD's form, and what the data must be."""

import pytest
import torch
from datasets import Dataset, DatasetDict, load_from_disk
from transformers import BertTokenizer

from distil_nlp.data import qa
from distil_nlp.data.qa import load
from distil_nlp.data.qa_collator import QACollator
from distil_nlp.data.transfer_set import DataLimits
from distil_nlp.errors import UserError
from distil_nlp.recipe.sections import DataSection
from tests.helpers import squad, tiny

LIMITS = DataLimits(selection_share=None, data_seed=1, mask_seed=1)


def loaded(splits, limits=LIMITS, **options):
    section = DataSection(path="x", task="qa", **{"max_length": 24, "stride": 4, **options})
    return load(DatasetDict(splits), tiny.tokenizer(), squad.TASK, section, limits)


def both(rows, test=None):
    return {"train": squad.dataset(rows), "test": squad.dataset(test or squad.questions(4, 9))}


def test_every_window_knows_where_its_answer_is():
    """Prevents labels that are a token off, windows that miss a piece of the context, and padding of the question."""
    rows = squad.questions(40)
    data = loaded(both(squad.questions(4, 5), rows))
    windows = data.split.evaluation["test"].to_list()
    assert data.task == "qa"
    assert len(windows) > len(rows)
    tokenizer = tiny.tokenizer()
    covered = {}
    for window in windows:
        tokens = [place for place, start in enumerate(window["token_starts"]) if start >= 0]
        assert window["is_allowed"] == [place in tokens for place in range(len(window["input_ids"]))]
        assert len(window["input_ids"]) <= 24
        assert tokenizer.cls_token_id == window["input_ids"][0]
        covered.setdefault(window["question_id"], set()).update(
            range(window["token_starts"][tokens[0]], window["token_ends"][tokens[-1]])
        )
        first, last = window["labels"]
        if first >= 0:
            start, stop = window["token_starts"][first], window["token_ends"][last]
            assert window["context"][start:stop] == window["answers"][0]
    assert len(covered) == 40
    lengths = {(row["question"], row["context"]): len(row["context"]) for row in rows}
    for window in windows:
        assert len(covered[window["question_id"]]) == lengths[window["question"], window["context"]]
    found = {window["question_id"] for window in windows if window["labels"][0] >= 0}
    assert found == set(covered)
    assert {tuple(w["labels"]) for w in windows if w["labels"][0] < 0} == {(-100, -100)}


def test_windows_without_an_answer_point_at_cls_where_some_questions_have_none():
    """Prevents −100 in SQuAD 2.0, whose models learn from such windows; null stays without a label."""
    data = loaded(both(squad.questions(30, 0, unanswerable=3, unlabelled=5)))
    assert data.task == "qa_v2"
    labels = torch.tensor(data.split.train["labels"][:])
    assert (labels == 0).all(1).any()
    assert (labels == -100).all(1).any()
    assert all(allowed[0] for allowed in data.split.train["is_allowed"])
    assert len(data.labelled()) == int((labels >= 0).all(1).sum()) < len(labels)
    assert "context" not in data.split.train.column_names


def test_rows_to_choose_by_have_other_questions_than_training():
    """Prevents windows of one question on both sides, and training rows whose texts are those of others."""
    limits = DataLimits(selection_share=0.3, data_seed=1, mask_seed=1)
    data = loaded(both(squad.questions(40)), limits)
    chosen = set(data.split.selection["context"])
    trained = set(data.split.train_texts["context"])
    assert len(chosen) == 12
    assert len(trained) == 28
    assert not chosen & trained


def test_one_split_is_divided_by_contexts():
    """Prevents a context that is both trained on and scored."""
    rows = [{**row, "question": f"{word} ?"} for row in squad.questions(20) for word in ("cat", "dog", "bird")]
    data = loaded({"train": squad.dataset(rows)})
    scored = set(data.split.evaluation["test"]["context"])
    assert 0 < len(scored) < 20
    assert not scored & set(data.split.train_texts["context"])
    assert data.split.held_out == "test"


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_moves_labels_and_positions_alike(side):
    """Prevents labels of a tokenizer that pads on the left from pointing at other tokens."""
    windows = squad.windows(10, unanswerable=4, scoring=True)
    batch = QACollator(tiny.tokenizer(padding_side=side), 8)(windows)
    assert batch["input_ids"].shape[1] % 8 == 0
    for number, window in enumerate(windows):
        own = batch["input_ids"][number]
        for place, label in zip(batch["labels"][number].tolist(), window["labels"], strict=True):
            assert own[place] == window["input_ids"][label]
            assert batch["is_allowed"][number, place]
        assert batch["is_allowed"][number].sum() == sum(window["is_allowed"])
        places = [place for place, start in enumerate(batch["windows"].starts[number]) if start >= 0]
        assert own[places].tolist() == [
            one for one, start in zip(window["input_ids"], window["token_starts"], strict=True) if start >= 0
        ]


def test_a_long_question_leaves_room_for_the_context(capsys):
    """Prevents a question that fills the input: the tokenizer would raise, hours later, for that one row."""
    rows = squad.questions(6)
    rows[2]["question"] = " ".join(["cat"] * 300)
    data = loaded(both(rows))
    assert "train: 1 of 6 questions are cut at 10 tokens: raise data.max_length" in capsys.readouterr().out
    assert max(map(len, data.split.train["input_ids"])) <= 24
    assert all(any(allowed) for allowed in data.split.train["is_allowed"])


def test_cut_questions_are_told_of_from_the_cache(tmp_path, capsys, monkeypatch):
    """Prevents all questions from being tokenised again at each start, and a column of notes in fingerprints."""
    rows = squad.questions(6)
    rows[2]["question"] = " ".join(["cat"] * 300)
    DatasetDict(both(rows)).save_to_disk(tmp_path)
    first = loaded(load_from_disk(str(tmp_path)))
    said = capsys.readouterr().out
    assert "train: 1 of 6 questions are cut" in said
    monkeypatch.setattr(qa, "_cut", None)
    again = loaded(load_from_disk(str(tmp_path)))
    assert capsys.readouterr().out == said
    for one, other in ((first, again), (again, first)):
        assert one.split.train.column_names == other.split.train.column_names
        assert "question_is_cut" not in {*one.split.train.column_names, *one.split.evaluation["test"].column_names}


def changed(row=2, **columns):
    rows = squad.questions(6)
    rows[row] = {**rows[row], **columns}
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            changed(answers={"text": ["cat"], "answer_start": [999]}),
            "expected the answer 'cat' at character 999 of the context in row 2 of train / got nothing",
        ),
        (changed(answers={"text": ["zebra"], "answer_start": [0]}), "the answer 'zebra' at character 0"),
        (changed(answers={"text": ["cat", "dog"], "answer_start": [0]}), "a start for each of the 2 answers in row 2"),
        (changed(answers={"text": [""], "answer_start": [0]}), "at character 0 of the context in row 2"),
        (changed(context=" "), "a context in each row of train / got 1 blank ones in 'context', the first in row 2"),
        (changed(context=None), "a context in each row of train / got 1 blank ones"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(rows, message):
    """Prevents another piece of text from being learned, where offsets count bytes or another version of the text."""
    with pytest.raises(UserError, match=message):
        loaded(both(rows))


def test_what_is_not_squad_is_refused():
    """Prevents a failure inside the tokenizer, and scores without answers."""
    rows = squad.questions(6)
    plain = Dataset.from_list([{**row, "answers": "cat"} for row in rows])
    listed = Dataset.from_list([{**row, "answers": [{"text": "cat", "answer_start": 0}]} for row in rows])
    for wrong in (plain, listed):
        with pytest.raises(UserError, match="as SQuAD has it"):
            loaded({"train": wrong, "test": wrong})
    empty = [{**row, "answers": {"text": [], "answer_start": []}} for row in rows]
    with pytest.raises(UserError, match="answers in 'answers' / got none in any row"):
        loaded(both(empty, empty))
    with pytest.raises(UserError, match="columns question, context / got"):
        loaded({"train": squad.dataset(rows).remove_columns("context"), "test": squad.dataset(rows)})
    with pytest.raises(UserError, match="every row of test labelled"):
        loaded(both(rows, squad.questions(6, 0, unlabelled=3)))


def test_settings_that_leave_no_room_and_slow_tokenizers_are_refused(tmp_path):
    """Prevents windows that do not move on, and answers that do not find their tokens."""
    with pytest.raises(UserError, match=r"data.stride: expected less than 11, .* / got 11"):
        loaded(both(squad.questions(6)), stride=11)
    section = DataSection(path="x", task="qa", max_length=24, stride=4)
    slow = tiny.tokenizer()
    slow.__class__ = type("SlowTokenizer", (BertTokenizer,), {"is_fast": False})
    with pytest.raises(UserError, match="a fast tokenizer"):
        load(DatasetDict(both(squad.questions(6))), slow, squad.TASK, section, LIMITS)
