"""Rows of a run, and what the tokenizers make of them."""

from __future__ import annotations

from typing import Annotated

from distil_nlp.results.schema.base import Block, SplitName, described


class Rows(Block):
    """Sizes of the data."""

    train: int | None = described("Training rows; blocks of tokens for `mlm`.", null="for a stream")
    labelled: int | None = described("Training rows with a label.", null="for `mlm`")
    evaluation: dict[SplitName, int] = described("Rows of each evaluation split, the first one first.")
    in_training: dict[SplitName, int] | None = described(
        "Rows of each evaluation split whose text is that of a training row; documents for `mlm`.",
        absent="in files of older versions",
        null="if they were not counted",
    )
    held_out: SplitName | None = described(
        "The split that was made of training rows (data.test_share), for data that has none to score on.",
        absent="in files of older versions",
        null="where the data has one",
    )


class Data(Block):
    """Version of the data set."""

    revision: str | None = described("Commit of the data set on the Hub.", null="for local files")


class TokenizedRows(Block):
    """Rows of a split that models of several tokenizers read."""

    rows: int = described("All rows, each of which took part.")
    cut: int = described("Rows whose text was cut, where the first of the tokenizers comes to `data.max_length`.")
    tokens: int = described("Tokens of the student's, special ones included.", absent="in files of older versions")
    aligned: int = described(
        "Of these, those with tokens of the first other tokenizer on the same characters.",
        absent="in files of older versions",
    )
    words: int = described(
        "Words that have a label (`tokens`), or tokens that may be masked (`mlm`).",
        absent="unless outputs are of tokens",
    )
    matched: int = described(
        "Of these, those that both models read (`tokens`), or that are one token in both vocabularies (`mlm`).",
        absent="unless outputs are of tokens",
    )


class Tokenizers(Block):
    """The tokenizers of a run whose teacher reads other tokens than its student."""

    student: str = described("The model whose tokenizer the student has.")
    others: list[str] = described("Teachers that read other tokens.")
    rows: dict[Annotated[str, "train or split"], TokenizedRows] = described("Rows of training and of each split.")


class TokensOfTexts(Block):
    """What a tokenizer makes of texts."""

    unknown: float = described("Fraction of the tokens that are unknown.")
    tokens_per_word: float = described("Tokens ÷ words between spaces, special tokens left out.")


class SmallerVocabulary(Block):
    """The vocabulary of a student that knows some of its teacher's words (`student.vocabulary`)."""

    tokens: int = described("Tokens of the student.")
    of: int = described("Tokens of the model that it starts from.")
    coverage: float = described("Fraction of the tokens in the counted texts that the student knows.")
    texts: int = described("Training texts whose tokens were counted, at most 50,000 of them.")
    held_out_texts: int = described("Training texts that were not counted, and are measured on: about a twentieth.")
    teacher: TokensOfTexts | None = described("By the teacher's tokenizer.", null="without such texts")
    student: TokensOfTexts | None = described("By the student's.", null="without such texts")
