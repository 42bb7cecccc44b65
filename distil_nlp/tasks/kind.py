"""`TaskKind`: all that differs between masked language modelling, classification and regression, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["token", "sequence"]
Output = Literal["distribution", "number"]


@dataclass(frozen=True)
class TaskKind:
    """A kind of task: its head, rows, labels, scores and words.

    The rest of the package asks for these values and never for a kind's name. To add a kind: a file beside
    `masked_lm.py` with an instance, a line in `kinds.KINDS`, and a module of the name `module` in `data/` (loading and
    batches: see `data/kinds.py`) and in `evaluation/` (scores: see `evaluation/kinds.py`).

    Attributes:
        name: in recipes (`data.task`) and in `results.json`.
        module: name of the kind's files in `data/` and `evaluation/`.
        auto_model: transformers' class that loads a model with the head.
        head_name: the head in messages.
        title: the kind in messages.
        has_labels: whether the head has an output for each label of the data, rather than for each word.
        problem_type: of the model's configuration; None where it has none.
        num_labels: outputs of the head where the kind fixes them.
        level: what a row of the logits is; a head on tokens runs on chosen tokens only.
        output: what a row of the logits means: a distribution over classes (a softmax), or a number.
        label_rows: row set of the rows that have a label.
        data_keys: keys of a recipe's section `data` that not every kind reads, and this one does.
        max_text_columns: most columns of text that make one input.
        streams: whether the data may be streamed.
        can_augment: whether `data.augmentation` has a meaning.
        names_corpus: whether folders are named after the data rather than the task.
        headline: metric that retention is taken on, for data of one's own.
        evaluation_splits: splits that scores are reported on, the first that exists.
        majority_name: baseline without a model, in tables.
        predicted: what is predicted for a row, in sentences.
        metric_names: a metric → its name in tables, where the kind has its own.
        metric_note: how the metrics are to be read, on the model card.
        pipeline_tag: transformers' pipeline that runs the student.
        pipeline_options: further arguments of that pipeline's call, as code; None for one that cannot truncate.
        example_input: an input of that pipeline, as code; `example_pair` where an input has two texts.
        hub_tags: tags of a model card, for data of one's own.
        purpose: what the student is meant for, on the model card.
        truncation: what became of long texts, on the model card.
        limit: a further sentence of the model card's limits.
    """

    name: str
    module: str
    auto_model: str
    head_name: str
    title: str
    has_labels: bool
    problem_type: str | None
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
    data_keys: frozenset[str] = frozenset()
    max_text_columns: int = 2
    streams: bool = False
    can_augment: bool = True
    names_corpus: bool = False
    evaluation_splits: tuple[str, ...] = ("test", "validation", "dev")
    metric_names: tuple[tuple[str, str], ...] = ()
    pipeline_options: str | None = ""
    example_pair: str = '{"text": "The first text.", "text_pair": "The second text."}'
    hub_tags: tuple[str, ...] = ()
    limit: str = ""

    def __str__(self) -> str:
        """Return the name, which is also how caches know the kind."""
        return self.name

    @property
    def predicts_words(self) -> bool:
        """Whether an output is over the vocabulary: too large to be whole, so that losses go through it in chunks."""
        return not self.has_labels
