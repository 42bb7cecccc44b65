"""Questions in SQuAD's form, with contexts of the tiny vocabulary, and their windows."""

import random
from typing import Any

from datasets import Dataset, Features, List, Value

from distil_nlp.data.qa import SpanLabels
from distil_nlp.data.qa_collator import QACollator
from distil_nlp.tasks import TASKS
from tests.helpers import tiny

ANSWERS = {"text": List(Value("string")), "answer_start": List(Value("int32"))}
FEATURES = Features(
    {"id": Value("string"), "question": Value("string"), "context": Value("string"), "answers": ANSWERS}
)


def questions(count: int = 24, seed: int = 0, unanswerable: int = 0, unlabelled: int = 0) -> list[dict[str, Any]]:
    """Return questions with two right answers each, contexts of 8 to 40 words; every n-th without an answer or label.

    Args:
        unanswerable: every so many have none; 0 for no such question.
        unlabelled: every so many have null.
    """
    generator, rows = random.Random(seed), []
    words = [word for word in tiny.WORDS.split() if word.isalpha() and word not in ("a", "the")]
    for number in range(count):
        context = generator.choices(words, k=generator.randint(8, 40))
        place, length = generator.randrange(1, len(context) - 3), generator.randint(1, 3)
        start = len(" ".join(context[:place])) + 1
        texts = [" ".join(context[place : place + n]) for n in (length, length % 3 + 1)]
        answers: Any = {"text": texts, "answer_start": [start, start]}
        if unanswerable and number % unanswerable == 1:
            answers = {"text": [], "answer_start": []}
        if unlabelled and number % unlabelled == 2:
            answers = None
        question = f"{context[place - 1]} {generator.choice(words)} ?"
        rows.append({"id": str(number), "question": question, "context": " ".join(context), "answers": answers})
    return rows


def dataset(rows: list[dict[str, Any]]) -> Dataset:
    return Dataset.from_list(rows, features=FEATURES)


def windows(
    count: int = 24, seed: int = 0, unanswerable: int = 0, scoring: bool = False, max_length: int = 24
) -> list[dict[str, Any]]:
    """Return tokenised windows of `questions`; with the columns that scores read if `scoring`."""
    rows, tokenizer = questions(count, seed, unanswerable), tiny.tokenizer()
    reader = SpanLabels(4, bool(unanswerable))
    texts = {name: [row[name] for row in rows] for name in ("question", "context")}
    tokens = reader.tokenise(tokenizer, texts, max_length)
    columns = reader.columns([row["answers"] for row in rows], (None, 2), tokens)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    kept = columns if scoring else {name: columns[name] for name in ("labels", "is_allowed")}
    parts = {**{name: tokens[name] for name in names}, **kept}
    return [dict(zip(parts, values, strict=True)) for values in zip(*parts.values(), strict=True)]


def collator() -> QACollator:
    return QACollator(tiny.tokenizer())


TASK = TASKS["qa"]
