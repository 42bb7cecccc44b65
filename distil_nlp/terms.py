"""The table of terms: each lives in a file of `losses/`, and is known to recipes by being here."""

from distil_nlp.losses.activations import ActivationBoundary, ActivationShare
from distil_nlp.losses.attention_maps import AttentionKL, AttentionMSE
from distil_nlp.losses.attention_scores import AttentionScoresMSE
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden import HiddenCosine, HiddenMSE
from distil_nlp.losses.relations import KeyRelation, QueryRelation, ValueRelation
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.term import Term

TERMS: dict[str, type[Term]] = {
    term.name: term
    for term in (
        SoftTargetKL,
        HardLabel,
        HiddenCosine,
        HiddenMSE,
        AttentionKL,
        AttentionMSE,
        AttentionScoresMSE,
        QueryRelation,
        KeyRelation,
        ValueRelation,
        ActivationBoundary,
        ActivationShare,
    )
}
