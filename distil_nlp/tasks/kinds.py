"""The table of kinds of task."""

from distil_nlp.errors import quoted
from distil_nlp.tasks.embedding import SENTENCE_EMBEDDING
from distil_nlp.tasks.kind import TaskKind
from distil_nlp.tasks.masked_lm import MASKED_LM
from distil_nlp.tasks.multilabel import MULTILABEL
from distil_nlp.tasks.qa import QA
from distil_nlp.tasks.ranking import RANKING
from distil_nlp.tasks.sequence_classification import CLASSIFICATION
from distil_nlp.tasks.sequence_regression import REGRESSION
from distil_nlp.tasks.tokens import TOKENS

KINDS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        MASKED_LM,
        CLASSIFICATION,
        MULTILABEL,
        REGRESSION,
        RANKING,
        TOKENS,
        QA,
        SENTENCE_EMBEDDING,
    )
}


def task_kind(kind: TaskKind | str) -> TaskKind:
    """Return a kind by its name, or as it is.

    Raises:
        ValueError: if there is no kind of that name.
    """
    if isinstance(kind, TaskKind):
        return kind
    if kind not in KINDS:
        raise ValueError(f"expected a kind of task: {', '.join(KINDS)} / got {quoted(kind)}")
    return KINDS[kind]
