"""Software and hardware of a run, and code of the user's own."""

from __future__ import annotations

from distil_nlp.results.schema.base import Block, FileName, Term, described


class Environment(Block):
    """Software and hardware of the run."""

    versions: dict[str, str | None] = described(
        "Versions of Python, this package, torch, transformers, accelerate, datasets, evaluate and numpy; null for a "
        "package that is not installed."
    )
    device: str = described("GPU name, or processor and number of cores.")
    threads: int = described("CPU threads of torch.")
    processes: int = described("Training processes.")
    commit: str | None = described("Git commit of this package.", null="if it does not run from a checkout")
    seed: int = described("Seed of the run's own student, whose weights are in `student/`.")


class OwnTerm(Block):
    """A loss term that is not the tool's own."""

    class_name: str = described("Name of its class.")
    formula: str = described("What it matches, in the words of its author.")
    formula_of_regression: str | None = described("Likewise for regression.", null="if it is the same")
    unit: str = described("Unit of its values.")
    paper: str | None = described("Number of its paper on arXiv.", null="if it names none")
    is_variant: bool = described("True if it is made after its paper, which has another loss.")


class OwnCode(Block):
    """A file or module of the user's own that was imported for the run (`plugins`)."""

    name: str = described("Path or module, as the recipe has it.")
    sha256: str = described("SHA-256 of the file.")
    imports: dict[FileName, str] = described(
        "Files beside it that it imports, by its import statements and theirs, and the SHA-256 of each.",
        absent="in files of older versions",
    )
    terms: dict[Term, OwnTerm] = described("The loss terms that it defines, used or not.")
