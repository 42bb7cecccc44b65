"""The table of terms that recipes can name. Each is defined in its own file of `losses/`."""

from distil_nlp.losses.activations import ActivationBoundary, ActivationShare
from distil_nlp.losses.adversarial import Adversarial
from distil_nlp.losses.alp import ALPKD
from distil_nlp.losses.attention_maps import AttentionKL, AttentionMSE
from distil_nlp.losses.attention_scores import AttentionScoresMSE
from distil_nlp.losses.binned_regression import BinnedRegression
from distil_nlp.losses.bounded_regression import BoundedRegression
from distil_nlp.losses.cka import LinearCKA
from distil_nlp.losses.contrastive import Contrastive
from distil_nlp.losses.decoupled_kd import DecoupledKD
from distil_nlp.losses.dist import DistInter, DistIntra
from distil_nlp.losses.divergences import JensenShannon, ReverseKL
from distil_nlp.losses.embeddings import EmbeddingCosine, EmbeddingMSE, EmbeddingSimilarityKL
from distil_nlp.losses.emd import HiddenEMD
from distil_nlp.losses.factor_transfer import FactorTransfer
from distil_nlp.losses.fitnets import FitNetsHint
from distil_nlp.losses.fsp import GramFlow
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.input_gradients import InputGradient
from distil_nlp.losses.logit_mse import LogitMSE
from distil_nlp.losses.mmd import MMD
from distil_nlp.losses.pkd import PKD
from distil_nlp.losses.r_drop import RDrop
from distil_nlp.losses.ranking import ListwiseKL, MarginMSE
from distil_nlp.losses.relations import KeyRelation, QueryRelation, ValueRelation
from distil_nlp.losses.replaced_tokens import ReplacedTokens
from distil_nlp.losses.rkd import RKDAngle, RKDDistance
from distil_nlp.losses.similarity import PKT, SimilarityPreserving
from distil_nlp.losses.soft_cross_entropy import SoftTargetCrossEntropy
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.losses.standardised_logits import StandardisedLogits
from distil_nlp.losses.teacher_free import LabelSmoothing, VirtualTeacher
from distil_nlp.losses.variational import VariationalInformation
from distil_nlp.losses.weight_matrices import WeightsMSE
from distil_nlp.objective import LossTerm

TERMS: dict[str, type[LossTerm]] = {
    term.name: term
    for term in (
        SoftTargetKL,
        SoftTargetCrossEntropy,
        ReverseKL,
        JensenShannon,
        LogitMSE,
        EmbeddingCosine,
        EmbeddingMSE,
        EmbeddingSimilarityKL,
        MarginMSE,
        ListwiseKL,
        StandardisedLogits,
        DecoupledKD,
        DistInter,
        DistIntra,
        BoundedRegression,
        BinnedRegression,
        HardLabel,
        LabelSmoothing,
        VirtualTeacher,
        RDrop,
        ReplacedTokens,
        HiddenCosine,
        HiddenMSE,
        PKD,
        FitNetsHint,
        VariationalInformation,
        MMD,
        LinearCKA,
        Contrastive,
        GramFlow,
        FactorTransfer,
        Adversarial,
        ALPKD,
        HiddenEMD,
        RKDDistance,
        RKDAngle,
        SimilarityPreserving,
        PKT,
        AttentionKL,
        AttentionMSE,
        AttentionScoresMSE,
        QueryRelation,
        KeyRelation,
        ValueRelation,
        ActivationBoundary,
        ActivationShare,
        InputGradient,
        WeightsMSE,
    )
}
