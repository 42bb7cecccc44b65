"""The sections `data` and `multitask`: rows, how they are read, and what is made of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from distil_nlp.objective import Fraction
from distil_nlp.recipe.sections.base import NAME_AS_LIST, FractionOrAll, NonEmpty, NonEmptyList, Section


class MaskingSection(Section):
    """Dynamic masking for `mlm`: 80 % of the chosen tokens become [MASK], 10 % a random token, 10 % stay.

    Attributes:
        probability: fraction of the ordinary tokens of a block that is chosen; 0 to mask none in training, where no
            term reads masked tokens. Scores are taken at 0.15 then.
        whole_words: choose words instead of tokens.
        spans: choose spans of adjacent words instead, of 1 to 10 words (SpanBERT).
        rare_token_power: choose rare tokens more often, by count^−power; DistilBERT: 0.7.
    """

    probability: Annotated[float, Field(ge=0, lt=1)] = 0.15
    whole_words: bool = False
    spans: bool = False
    rare_token_power: Annotated[float, Field(ge=0)] = 0.0


class MixupSection(Section):
    """Mixtures of the embeddings of two rows; see `distil_nlp.data.augmentation.mixup.Mixup`.

    Attributes:
        share: fraction of the rows that are mixed, drawn in each epoch.
        alpha: of the distribution Beta(α, α) of the coefficients λ and 1 − λ.
    """

    share: FractionOrAll = 0.5
    alpha: Annotated[float, Field(gt=0)] = 0.4


class CutoffSection(Section):
    """Tokens hidden from both models; see `distil_nlp.data.augmentation.cutoff.Cutoff`.

    Attributes:
        share: fraction of the rows with hidden tokens, drawn in each epoch.
        probability: of each token of such a row; [CLS] and separators stay.
    """

    share: FractionOrAll = 1.0
    probability: Fraction = 0.1


class ReplacementSection(Section):
    """Copies of rows with replaced words; see `distil_nlp.data.augmentation.word_replacement.WordReplacement`.

    Attributes:
        copies: further rows for each row.
        probability: of each word of a copy to be replaced.
        candidates: number of likeliest words from which the new word is drawn.
        model: masked language model that proposes words; by default the teacher's own checkpoint.
        folder: parent folder of the rows.
    """

    copies: PositiveInt = 20
    probability: FractionOrAll = 0.4
    candidates: PositiveInt = 15
    model: Annotated[str, Field(min_length=1)] | None = None
    folder: str = "runs/augmented"


class AugmentationSection(Section):
    """Augmentation of the training rows of a task, without labels: the teacher's outputs replace them.

    Each part is off unless it is named; `{}` takes its defaults.

    Attributes:
        mixup: mixtures of two rows.
        cutoff: rows with hidden tokens, which keep their labels.
        replacement: copies of rows with replaced words.
    """

    mixup: MixupSection | None = None
    cutoff: CutoffSection | None = None
    replacement: ReplacementSection | None = None


class DataSection(Section):
    """The transfer set, the data of distillation.

    Attributes:
        path: a name on the Hub, a folder in the layout of a Hub repository, or a file; or a list of files, or
            split → files.
        name: configuration of the dataset; by default the GLUE task.
        revision: commit, branch or tag of the dataset.
        task: `mlm` for text, a GLUE task, or a kind of task (`classification`, `multilabel`, `regression`, `tokens`,
            `qa`, `embedding`, `ranking`) on named columns.
        text_columns: one column, or two for pairs; for `tokens` a column of lists of words; for `ranking` those of the
            query and of the document.
        label_column: rows labelled −100, NaN or null learn from the teacher alone. For `multilabel` a column of lists,
            for `tokens` one of lists of tags; for `qa` of answers as SQuAD has them; for embeddings, the scores of
            pairs; for `ranking` the relevance of a document, 0 or 1, or grades from 0 on.
        label_columns: for `multilabel`, columns of 0 and 1 instead, one for each label.
        label_separator: for `multilabel`, what stands between the labels of a row where the label column has strings.
        group_column: for `ranking`, the column that tells which rows are of one query; by default the query itself.
        group_size: for `ranking`, most documents of a query that an epoch reads; all of them share a batch.
        pooling: for embeddings, how a teacher without a sentence-transformers folder makes a vector of its tokens'
            states; `mean` by default.
        normalize: likewise, whether its vectors have length 1; true by default.
        label_names: the names of the data's classes in the order of the teacher's, where its own do not tell the order.
        train_split: split to train on.
        evaluation_splits: splits to report scores on; by default the task's own.
        test_share: for data of one's own without a split to score on, the fraction of the labelled rows that is.
        held_out_share: for `mlm` without a validation split, the fraction of documents held out.
        selection_share: where training evaluates, the fraction of training rows split off to choose a checkpoint by.
        max_length: tokens of an input; blocks of `mlm` have exactly this length.
        stride: for `qa`, tokens that two windows of a long context have in common.
        pad_to_multiple_of: for tasks, pad batches to a multiple of this length, so that they have few shapes.
        max_train_rows: upper limit of training rows, drawn with a fixed seed.
        share: fraction of the training rows (after that limit) that is kept, for a fine-tuned teacher too; a larger one
            has all rows of a smaller one, and labels keep their proportion.
        labelled_share: fraction of the labels of the training rows that is kept: the other rows learn from the teacher
            alone, who is fine-tuned on those with a label. Nested and in proportion as `share` is.
        max_evaluation_rows: upper limit of rows of each evaluation split.
        streaming: for `mlm`, read the corpus while training; needs `training.max_steps`.
        shuffle_buffer: blocks of a stream in memory, from which the next one is drawn.
        num_proc: processes that tokenise.
        masking: masking for `mlm`.
        augmentation: changes of the training rows of a task.
    """

    path: NonEmpty | NonEmptyList | Annotated[dict[str, NonEmpty | NonEmptyList], Field(min_length=1)]
    name: str | None = None
    revision: str | None = None
    task: str
    text_columns: Annotated[list[str], NAME_AS_LIST, Field(min_length=1, max_length=2)] | None = None
    label_column: str = "label"
    label_columns: Annotated[list[str], NAME_AS_LIST, Field(min_length=2)] | None = None
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    group_column: str | None = None
    group_size: Annotated[int, Field(ge=2)] = 8
    pooling: Literal["mean", "cls", "max"] | None = None
    normalize: bool | None = None
    label_names: Annotated[list[str | int], Field(min_length=2)] | None = None
    train_split: str = "train"
    evaluation_splits: Annotated[list[str], NAME_AS_LIST] | None = None
    test_share: Fraction = 0.2
    held_out_share: Fraction = 0.02
    selection_share: Fraction = 0.1
    max_length: Annotated[int, Field(ge=8)] = 128
    stride: Annotated[int, Field(ge=0)] = 128
    pad_to_multiple_of: PositiveInt | None = None
    max_train_rows: PositiveInt | None = None
    share: FractionOrAll = 1.0
    labelled_share: FractionOrAll = 1.0
    max_evaluation_rows: PositiveInt | None = None
    streaming: bool = False
    shuffle_buffer: PositiveInt = 2000
    num_proc: PositiveInt | None = None
    masking: MaskingSection = MaskingSection()
    augmentation: AugmentationSection = AugmentationSection()


class MultitaskSection(Section):
    """Several tasks at once, where `data` is a list: one encoder, and a head for each task.

    Attributes:
        sampling_power: a step's task is drawn with a probability that grows with its number of training rows to this
            power: 1 for as often as it has rows, 0 for all tasks alike.
        tasks: names of all tasks, in their order; filled in from the list.
        task: the name of the task whose recipe this is; likewise.
    """

    sampling_power: Annotated[float, Field(ge=0, le=1)] = 0.75
    tasks: list[str] = []
    task: str | None = None
