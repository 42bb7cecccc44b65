"""`TaskKind`: the differences between kinds of task, such as classification and regression, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["token", "sequence"]
Output = Literal["distribution", "number", "labels", "embedding", "score", "spans"]
OUTPUT_MEANINGS: dict[Output, str] = {
    "distribution": "one distribution over classes (a softmax)",
    "number": "a number",
    "labels": "a probability of each label by itself (sigmoids)",
    "embedding": "the vector of a text",
    "score": "a score by which the documents of a query are ordered",
    "spans": "two distributions over the positions of a text, of where an answer starts and ends",
}
"""What a row of logits is, in words."""
ANSWERED = "answered/"
"""Prefix of the name of a set of sequences that leaves out those without a teacher's answer."""
ALIGNED, MATCHED = "aligned/", "matched/"
"""Prefixes of the names of sets of tokens that leave out those which the teacher, with a tokenizer of its own, has no
tokens for: of the same characters, or exactly one that is the same word."""
SEQUENCE_SETS = frozenset({"sequences", "labelled", f"{ANSWERED}sequences", f"{ANSWERED}labelled"})
"""Row sets of positions in the batch; those of tokens are flat positions in (batch × seq)."""
ProblemType = Literal["regression", "single_label_classification", "multi_label_classification"]


@dataclass(frozen=True)
class TaskKind:
    """A kind of task: its head, rows, labels, metrics and wording.

    The rest of the package reads these values and never compares a kind's name. To add a kind: a file next to
    `masked_lm.py` with an instance, a line in `kinds.KINDS`, and a module called `module` in `data/` (loading and
    batches: see `data/kinds.py`) and in `evaluation/` (metrics: see `evaluation/kinds.py`).

    Attributes:
        name: name in recipes (`data.task`) and in `results.json`.
        module: name of the kind's files in `data/` and `evaluation/`.
        auto_model: transformers' class that loads a model with the head.
        head_name: name of the head in messages.
        title: name of the kind in messages.
        has_labels: True if the head has an output for each label of the data; False for an output per word.
        problem_type: `problem_type` of the model's configuration; None if it has none.
        num_labels: number of outputs, if it is the same for all tasks of the kind.
        level: the unit of a row of logits; a head on tokens runs on selected tokens only.
        output: the meaning of a row of logits: a distribution over classes (by a softmax), a number, `labels`, an
            independent probability of each class (by a sigmoid), `embedding`, the vector of a text, `score`, which
            compares the documents of a query, or `spans`, two distributions over positions.
        label_rows: row set of the rows that have a label.
        columns: columns of rows that reach the collator besides the models' inputs.
        data_keys: keys of a recipe's section `data` that this kind reads and some others do not.
        max_text_columns: maximal number of text columns.
        joins_pairs: True if two text columns are one input; False if each text is one.
        task_of_texts: name of the task of the same kind for one text column, where that has another headline metric.
        learns_labels: True if a model can be trained on the data's labels alone.
        streams: True if the data may be streamed.
        reads_other_tokens: True if the teacher may have another tokenizer than the student.
        can_augment: True if `data.augmentation` is supported.
        names_corpus: True if folders are named after the data rather than the task.
        headline: metric that retention is computed from, for custom data.
        evaluation_splits: splits that scores are reported on, the first that exists.
        majority_name: name of the baseline without a model, in tables.
        guess: noun for what that baseline knows, in verdicts.
        predicted: noun for the prediction of a row, in sentences.
        compared: noun for what has a prediction, in sentences.
        class_columns: headings of what a table by class is of, and of its number.
        row_name: noun for a row.
        row_error: what a row's error is, where it is not right or wrong; the mean of it is shown.
        drawn: noun for what intervals draw anew, where these are no rows.
        metric_names: a metric → its name in tables, if the kind has its own.
        calibration_note: what calibration is of, in a sentence, where it is not of rows.
        threshold_rule: what the threshold of predictions decides, with {} for it; empty for kinds without one.
        threshold_metric: name of the metric that the threshold is the best for.
        metric_note: note on how to read the metrics, on the model card.
        pipeline_tag: transformers' pipeline that runs the student, or the Hub's name for what it does.
        library: library that runs the student, on its model card.
        usage: code that runs the student, with `STUDENT` for its name, where transformers has no such pipeline.
        truncates: True if that pipeline's call takes `truncation` and `max_length`.
        pipeline_options: further arguments of that pipeline's call, as code.
        example_input: an input of that pipeline, as code; `example_pair` for an input of two texts.
        hub_tags: tags of a model card, for custom data.
        purpose: intended use of the student, on the model card.
        truncation: treatment of long texts, on the model card.
        limit: a further sentence of the model card's limitations.
    """

    name: str
    module: str
    auto_model: str
    head_name: str
    title: str
    has_labels: bool
    problem_type: ProblemType | None
    level: Level
    output: Output
    label_rows: str
    headline: str
    majority_name: str
    predicted: str
    metric_note: str
    pipeline_tag: str
    example_input: str
    purpose: str
    truncation: str
    num_labels: int | None = None
    compared: str = "row"
    class_columns: tuple[str, str] = ("class", "rows")
    columns: frozenset[str] = frozenset({"labels", "word_ids"})
    data_keys: frozenset[str] = frozenset()
    max_text_columns: int = 2
    joins_pairs: bool = True
    task_of_texts: str | None = None
    learns_labels: bool = True
    streams: bool = False
    reads_other_tokens: bool = True
    can_augment: bool = True
    names_corpus: bool = False
    evaluation_splits: tuple[str, ...] = ("test", "validation", "dev")
    metric_names: tuple[tuple[str, str], ...] = ()
    calibration_note: str = ""
    threshold_rule: str = ""
    threshold_metric: str = ""
    truncates: bool = True
    usage: str = ""
    pipeline_options: str = ""
    example_pair: str = '{"text": "The first text.", "text_pair": "The second text."}'
    hub_tags: tuple[str, ...] = ()
    limit: str = ""
    row_name: str = "row"
    row_error: str = "distance from the label"
    drawn: str = "row"
    guess: str = "a guess"
    library: str = "transformers"

    def __str__(self) -> str:
        """Return the name, which is also part of the keys of caches."""
        return self.name

    def is_of_sequences(self, row_set: str) -> bool:
        """Return whether a row set has positions in the batch, not in (batch × seq)."""
        return row_set in SEQUENCE_SETS and not (row_set == self.label_rows and self.level == "token")

    @property
    def predicts_words(self) -> bool:
        """True if the outputs are over the vocabulary: too large for memory, so that losses are computed in chunks."""
        return self.output == "distribution" and not self.has_labels

    @property
    def has_classes(self) -> bool:
        """True if the outputs of a row are of the data's classes."""
        return self.has_labels and self.output in ("distribution", "labels")

    @property
    def has_row_outputs(self) -> bool:
        """True if a row has one output of fixed size, its logits or a number, which scores and comparisons read."""
        return self.level == "sequence" and self.output != "spans"

    @property
    def has_row_probability(self) -> bool:
        """True if a model gives the prediction for a row a probability."""
        return self.has_row_outputs and self.is_right_or_wrong

    @property
    def has_vectors(self) -> bool:
        """True if the output of a text is its vector, which is made of the states of its tokens."""
        return self.output == "embedding"

    @property
    def graph_outputs(self) -> tuple[str, ...]:
        """Names of the outputs of an exported model, which clients look for; vectors are made outside of it."""
        return _GRAPH_OUTPUTS.get(self.output, ("logits",))

    @property
    def is_right_or_wrong(self) -> bool:
        """True if the prediction for a row is right or wrong; False if it is some distance from the label."""
        return self.output in _RIGHT_OR_WRONG


_RIGHT_OR_WRONG: frozenset[Output] = frozenset({"distribution", "labels", "spans"})
_GRAPH_OUTPUTS: dict[Output, tuple[str, ...]] = {
    "spans": ("start_logits", "end_logits"),
    "embedding": ("last_hidden_state",),
}
