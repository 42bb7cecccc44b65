"""The section `student`: its shape, and what trains together with it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from distil_nlp.objective import Fraction
from distil_nlp.objective.schedule import Curve
from distil_nlp.recipe.sections.base import FractionOrAll, Section, StudentLayers, short_form
from distil_nlp.recipe.sections.shape import BudgetSection, PruningSection, ShapeSection, StudentPart, VocabularySection


class ReplacingSection(Section):
    """Module replacing: the teacher's layers run in place of the student's; see `distil_nlp.training.replacing`.

    Attributes:
        start: probability with which a student's layer runs itself, at the first step.
        full_at: fraction of training over which that rises to 1.
    """

    start: Annotated[float, Field(ge=0, le=1)] = 0.3
    full_at: FractionOrAll = 0.6


class AugmentSection(Section):
    """Network augmentation: a wider net trains around the student; see `distil_nlp.training.netaug`.

    Attributes:
        ffn: factors of the number of feed-forward units of the wider net, of which each step draws one; a step with 1
            is one of the student alone.
        until: fraction of the steps from which on the student trains alone.
        weight: weight of the wider net's loss beside the student's own.
    """

    ffn: Annotated[list[Annotated[float, Field(ge=1, le=8)]], Field(min_length=1)] = [1.0, 2.0]
    until: Annotated[float, Field(ge=0, le=1)] = 0.5
    weight: Annotated[float, Field(gt=0)] = 1.0


def _pattern(value: str) -> str:
    """Return a pattern N:M, which must keep fewer weights than there are."""
    kept, _, among = value.partition(":")
    if not (kept.isdecimal() and among.isdecimal() and 0 < int(kept) < int(among)):
        raise ValueError("N:M, the number kept of M neighbours, N below M, such as 2:4")
    return value


class SparsitySection(Section):
    """Weights of the blocks' linear layers become zero; see `distil_nlp.training.sparsity`. A number is `share`.

    Attributes:
        share: fraction of zeros in each layer in the end; or
        pattern: N weights that are kept of M neighbours along the input dimension, such as `2:4`.
        by: `magnitude` drops the smallest weights (Zhu & Gupta), `movement` those that training moved towards zero
            most (Sanh et al.).
        start, end: fractions of training between which the zeros grow from none to all, fast at first.
        every: steps between two choices of the weights to drop.
    """

    share: Fraction | None = None
    pattern: Annotated[str, AfterValidator(_pattern)] | None = None
    by: Literal["magnitude", "movement"] = "magnitude"
    start: Annotated[float, Field(ge=0, lt=1)] = 0.1
    end: FractionOrAll = 0.7
    every: PositiveInt = 10

    @model_validator(mode="after")
    def _holds(self) -> Self:
        if (self.share is None) == (self.pattern is None):
            raise ValueError("one of share (a fraction) and pattern (such as 2:4)")
        if self.start >= self.end:
            raise ValueError("a start below the end")
        return self


class QuantizationSection(Section):
    """Quantisation-aware training: embeddings and blocks compute as their int8 copies will.

    See `distil_nlp.training.fake_quantization`.

    Attributes:
        start: fraction of training from which on they do; in evaluation always.
        reduce_range: weights of 7 bits, as with `export.reduce_range`.
    """

    start: Annotated[float, Field(ge=0, lt=1)] = 0.5
    reduce_range: bool = False


class ExitsSection(Section):
    """Exits of the student, each a smaller student; a list is `after` with defaults for the rest.

    Attributes:
        after: numbers of blocks after which there is an exit; the student's own depth is one anyway.
        alpha: share that an exit learns from the student's own output; the rest is the objective's terms on outputs.
        temperature: T of what it learns from there.
        hint: factor of the squared distance of an exit's [CLS] state to the last block's.
    """

    after: Annotated[list[PositiveInt], Field(min_length=1)]
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
    temperature: Annotated[float, Field(gt=0)] = 3.0
    hint: Annotated[float, Field(ge=0)] = 0.0


class PeerSection(Section):
    """The shape of a peer; what is left out is as in the student.

    Attributes:
        num_layers, layers, config: see `StudentSection`.
    """

    num_layers: PositiveInt | None = None
    layers: StudentLayers | None = None
    config: dict[str, Any] | None = None


class PeersSection(Section):
    """Students that train together and learn from each other; a number or a list alone is `models`.

    Attributes:
        models: the number of all peers, the student the first of them; or the shapes of the others.
        weight: factor of what each learns from the others.
        temperature: T of that.
        ramp: `linear` or `cosine` to let that factor grow from 0 over the training.
    """

    models: Annotated[int, Field(ge=2, le=8)] | Annotated[list[PeerSection], Field(min_length=1, max_length=7)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 1.0
    ramp: Curve = "constant"


class BranchesSection(Section):
    """Branches over a shared trunk, with a gate that weighs them; a number alone is `models`.

    Attributes:
        models: the number of branches, the student's own last blocks the first of them.
        blocks: number of blocks of a branch; those before are the trunk.
        weight: factor of what each branch learns from all of them, weighed by the gate.
        temperature: T of that.
        ramp: `linear` or `cosine` to let that factor grow from 0 over the training.
    """

    models: Annotated[int, Field(ge=2, le=8)]
    blocks: PositiveInt = 1
    weight: Annotated[float, Field(gt=0)] = 1.0
    temperature: Annotated[float, Field(gt=0)] = 3.0
    ramp: Curve = "constant"


class StudentSection(ShapeSection):
    """The student: its shape, or a checkpoint.

    Attributes:
        name: a checkpoint to start from instead of the teacher's layers: a folder, or a name on the Hub.
        revision: commit, branch or tag of that checkpoint.
        fresh: parts that start from random weights instead of the teacher's: `embeddings`, `layers`, `head` (with the
            pooler).
        embedding_size: features of its embeddings, fewer than the teacher's, from which they are factorised (SVD); for
            families with a projection from embeddings to states: ConvBERT, DeBERTa, ELECTRA, RemBERT, RoFormer.
        vocabulary: know the words alone that the training text needs; the teacher keeps all of its own.
        pruning: keep the important parts of each layer alone; `{}` takes the defaults, which cut nothing.
        budget: what it may cost; depth, heads and units are found by importance and short trainings.
        generations: number of students of this shape, each of which teaches the next one; the last is the run's own.
            The runs of the others are in `teacher.folder`.
        ema: upper limit of the decay of an exponential moving average of its weights over the steps of training, which
            is evaluated and saved in their place; see `distil_nlp.training.ema.WeightAverage`.
        replacing: let each layer stand in for a group of the teacher's by chance, more and more often; `{}` takes the
            defaults.
        augment: train a wider net around it too, which shares its weights; `{}` takes the defaults.
        sparsity: set weights of its blocks to zero as training goes on, for good.
        quantization: train embeddings and blocks as they will compute in int8; `{}` takes the defaults.
        exits: exits within the student, which train together with it and become students of their own.
        peers: students that train together with this one, which all learn from each other; the best is kept.
        branches: copies of its last blocks that train together over the shared others; the best is kept.
    """

    name: str | None = None
    revision: str | None = None
    fresh: list[StudentPart] = []
    embedding_size: PositiveInt | None = None
    vocabulary: VocabularySection | None = None
    pruning: PruningSection | None = None
    budget: BudgetSection | None = None
    generations: PositiveInt = 1
    ema: Fraction | None = None
    replacing: ReplacingSection | None = None
    augment: AugmentSection | None = None
    sparsity: Annotated[SparsitySection | None, short_form(SparsitySection, "share")] = None
    quantization: QuantizationSection | None = None
    exits: Annotated[ExitsSection | None, short_form(ExitsSection, "after")] = None
    peers: Annotated[PeersSection | None, short_form(PeersSection, "models")] = None
    branches: Annotated[BranchesSection | None, short_form(BranchesSection, "models")] = None
