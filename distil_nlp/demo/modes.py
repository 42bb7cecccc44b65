"""What a page asks for and shows, for each kind of task: its fields, its examples, its sentences."""

from __future__ import annotations

from dataclasses import dataclass, field

from distil_nlp.tasks import TaskKind


@dataclass(frozen=True)
class Field:
    """A field to type into.

    Attributes:
        name: the key of its text in an example.
        label: what stands above it.
        lines: its height.
        hint: what stands below it.
    """

    name: str
    label: str
    lines: int = 3
    hint: str = ""


@dataclass(frozen=True)
class Mode:
    """What a page does.

    Attributes:
        name: the function in `models.js` that makes rows of the model's outputs.
        auto_model: the class of transformers.js that loads the model.
        verb: the text of the button.
        does: completes “In this page a small model …”.
        fields: what is typed.
        examples: invented inputs: a text for each field.
        result: the heading of what comes out.
        note: how to read it.
    """

    name: str
    auto_model: str
    verb: str
    does: str
    fields: tuple[Field, ...]
    examples: tuple[tuple[str, ...], ...]
    result: str
    note: str = ""
    needs_mask: bool = field(default=False)


_TEXT = (Field("text", "Text"),)
_PAIR = (Field("text", "First text"), Field("text_pair", "Second text"))
_SEQUENCES, _TOKENS = "AutoModelForSequenceClassification", "AutoModelForTokenClassification"
_EXAMPLE_TEXTS = (
    ("The staff were friendly and the room was spotless. We will come again.",),
    ("I have waited two weeks for my parcel and nobody answers my messages.",),
    ("The museum opens at nine and closes at five.",),
)
_EXAMPLE_PAIRS = (
    ("The bridge was closed on Monday for repairs.", "On Monday the bridge was shut because it was being repaired."),
    ("The bridge was closed on Monday for repairs.", "The bridge will be open all week."),
    ("A woman is playing the violin.", "Somebody is making music."),
)
_CLASSES = "Probabilities of a softmax; they add up to 100 %."
_LABELS = "Each label has a probability of its own. A text has those whose bar reaches the mark."
_WORDS = Mode(
    "words",
    "AutoModelForMaskedLM",
    "Fill in",
    "fills in a missing word",
    (Field("text", "Text with a gap", 3, "The gap is written MASK."),),
    (
        ("She put the letter into the MASK and closed it.",),
        ("The capital of France is MASK.",),
        ("It was so cold that the lake was covered with MASK.",),
    ),
    "Likeliest words",
    "Probabilities over all words that the model knows.",
    needs_mask=True,
)
_TAGS = Mode(
    "tags",
    _TOKENS,
    "Tag",
    "tags the words of a text",
    _TEXT,
    (
        ("Maria Keller moved from Lisbon to Oslo in May to work for the Red Cross.",),
        ("The orchestra of Vienna plays at the Royal Albert Hall tonight.",),
        ("Anna met Peter at the station, and they took the train to Prague.",),
    ),
    "Tagged words",
    "The probability is that of the tag at the first piece of the word; of several words, their mean.",
)
_SPANS = Mode(
    "spans",
    "AutoModelForQuestionAnswering",
    "Answer",
    "finds the answer to a question in a text",
    (Field("question", "Question", 1), Field("context", "Text that has the answer", 6)),
    (
        (
            "When was the lighthouse built?",
            "The lighthouse at the end of the harbour was built in 1867 by a company from Hamburg. It is 31 metres "
            "high, and since 1978 it has been run without a keeper.",
        ),
        (
            "Who runs the bakery?",
            "The bakery on the corner belonged to the Lind family for a century. Today Sara Holm runs it with two "
            "apprentices.",
        ),
    ),
    "Answers",
    "Pieces of the text, of at most 30 tokens; the probability is among those that are compared.",
)
_SCORES = Mode(
    "scores",
    _SEQUENCES,
    "Order",
    "orders documents by how well they answer a query",
    (Field("query", "Query", 1), Field("documents", "Documents", 6, "One document a line.")),
    (
        (
            "how to keep bread fresh",
            "Bread stays fresh longest in a bag at room temperature, or sliced in the freezer.\n"
            "The first bakeries of the city opened in the 12th century.\n"
            "Store bread cut side down on a wooden board.",
        ),
        (
            "train from Oslo to Bergen",
            "The Bergen line crosses the mountains in about seven hours.\n"
            "Bergen is known for its rain.\n"
            "Buses leave Oslo for Stockholm twice a day.",
        ),
    ),
    "Best first",
    "The scores say which document comes first, and are no probabilities.",
)
_VECTORS = Mode(
    "vectors",
    "AutoModel",
    "Compare",
    "compares the meanings of texts",
    (Field("text", "Text", 2), Field("others", "Compared with", 6, "One text a line.")),
    (
        (
            "A man is riding a horse.",
            "Somebody rides on an animal.\nA woman is cooking pasta.\nThe horse gallops along the beach.",
        ),
        (
            "How do I reset my password?",
            "I cannot log in any more.\nWhere can I change my password?\nWhat does shipping cost?",
        ),
    ),
    "Most similar first",
    "Cosines of the texts’ vectors: 1 is the same direction.",
)


def mode_of(kind: TaskKind, is_pair: bool) -> Mode | None:
    """Return what a page does for a kind of task; None for a kind that pages cannot do.

    Args:
        kind: of the task.
        is_pair: whether an input is two texts.
    """
    if kind.predicts_words:
        return _WORDS
    if kind.level == "token":
        return _TAGS if kind.output == "distribution" else None
    return {"spans": _SPANS, "score": _SCORES, "embedding": _VECTORS}.get(kind.output) or _of_texts(kind, is_pair)


def _of_texts(kind: TaskKind, is_pair: bool) -> Mode | None:
    """Return what a page does where a text, or a pair, has classes, labels or a number."""
    told = {
        "distribution": ("classes", "Classify", "classifies", "Classes", _CLASSES),
        "labels": ("labels", "Label", "finds the labels of", "Labels", _LABELS),
        "number": ("number", "Rate", "rates", "Number", ""),
    }.get(kind.output)
    if told is None:
        return None
    name, verb, does, result, note = told
    fields, examples, texts = (_PAIR, _EXAMPLE_PAIRS, "pairs of texts") if is_pair else (_TEXT, _EXAMPLE_TEXTS, "texts")
    return Mode(name, _SEQUENCES, verb, f"{does} {texts}", fields, examples, result, note)
