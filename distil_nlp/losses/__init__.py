"""Published distillation losses: one file for each, with its formula and the term that a recipe names.

A formula is a pure function of tensors that returns the **sum** over its rows, never a mean: the caller knows how many
rows the whole optimiser step has (all micro-batches, all processes) and divides by that once. Padding never gets here,
because rows are selected before.

All terms, their formulas and the table `TERMS` can be imported from here. Where a formula and its file share a name
(`pkd`, `mmd`, …), the name here is the formula. Modules of this package import from the defining file instead.
"""

from distil_nlp.losses.activations import ActivationBoundary, ActivationShare, activation_boundary, activation_share
from distil_nlp.losses.adversarial import Adversarial, adversarial
from distil_nlp.losses.alp import ALPKD, alp_kd
from distil_nlp.losses.attention_maps import AttentionKL, AttentionMSE, attention_kl, attention_mse
from distil_nlp.losses.attention_scores import AttentionScoresMSE, attention_scores_mse
from distil_nlp.losses.binned_regression import BinnedRegression, binned_regression
from distil_nlp.losses.bounded_regression import BoundedRegression, bounded_regression
from distil_nlp.losses.cka import LinearCKA, linear_cka_loss
from distil_nlp.losses.contrastive import Contrastive, contrastive
from distil_nlp.losses.decoupled_kd import DecoupledKD, decoupled_kd
from distil_nlp.losses.dist import DistInter, DistIntra, dist_inter, dist_intra
from distil_nlp.losses.divergences import JensenShannon, ReverseKL, jensen_shannon, reverse_kl
from distil_nlp.losses.embeddings import EmbeddingCosine, EmbeddingMSE, EmbeddingSimilarityKL, similarity_kl
from distil_nlp.losses.emd import HiddenEMD, emd
from distil_nlp.losses.factor_transfer import FactorTransfer, factor_transfer
from distil_nlp.losses.fitnets import FitNetsHint, fitnets_hint
from distil_nlp.losses.fsp import GramFlow, gram_flow
from distil_nlp.losses.hard_labels import (
    HardLabel,
    hard_binary_cross_entropy,
    hard_cross_entropy,
    hard_mse,
    hard_relevance,
)
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE, hidden_cosine, hidden_mse
from distil_nlp.losses.input_gradients import InputGradient, input_gradient
from distil_nlp.losses.logit_mse import LogitMSE, logit_mse
from distil_nlp.losses.mmd import MMD, mmd
from distil_nlp.losses.pkd import PKD, pkd
from distil_nlp.losses.r_drop import RDrop, r_drop, r_drop_bernoulli, r_drop_mse
from distil_nlp.losses.ranking import ListwiseKL, MarginMSE, listwise_kl, margin_mse
from distil_nlp.losses.registry import TERMS
from distil_nlp.losses.relations import KeyRelation, QueryRelation, ValueRelation, relation
from distil_nlp.losses.replaced_tokens import ReplacedTokens, replaced_tokens
from distil_nlp.losses.rkd import RKDAngle, RKDDistance, rkd_angle, rkd_distance
from distil_nlp.losses.similarity import PKT, SimilarityPreserving, pkt, similarity_preserving
from distil_nlp.losses.soft_cross_entropy import SoftTargetCrossEntropy, soft_target_cross_entropy
from distil_nlp.losses.soft_targets import (
    SoftTargetKL,
    soft_target_bernoulli_kl,
    soft_target_kl,
    soft_target_kl_top,
    soft_target_mse,
)
from distil_nlp.losses.standardised_logits import StandardisedLogits, standardised_logits
from distil_nlp.losses.teacher_free import LabelSmoothing, VirtualTeacher, label_smoothing, virtual_teacher
from distil_nlp.losses.variational import VariationalInformation, variational_information
from distil_nlp.losses.weight_matrices import WeightsMSE, weights_mse

__all__ = [
    "ALPKD",
    "MMD",
    "PKD",
    "PKT",
    "TERMS",
    "ActivationBoundary",
    "ActivationShare",
    "Adversarial",
    "AttentionKL",
    "AttentionMSE",
    "AttentionScoresMSE",
    "BinnedRegression",
    "BoundedRegression",
    "Contrastive",
    "DecoupledKD",
    "DistInter",
    "DistIntra",
    "EmbeddingCosine",
    "EmbeddingMSE",
    "EmbeddingSimilarityKL",
    "FactorTransfer",
    "FitNetsHint",
    "GramFlow",
    "HardLabel",
    "HiddenCosine",
    "HiddenEMD",
    "HiddenMSE",
    "InputGradient",
    "JensenShannon",
    "KeyRelation",
    "LabelSmoothing",
    "LinearCKA",
    "ListwiseKL",
    "LogitMSE",
    "MarginMSE",
    "QueryRelation",
    "RDrop",
    "RKDAngle",
    "RKDDistance",
    "ReplacedTokens",
    "ReverseKL",
    "SimilarityPreserving",
    "SoftTargetCrossEntropy",
    "SoftTargetKL",
    "StandardisedLogits",
    "ValueRelation",
    "VariationalInformation",
    "VirtualTeacher",
    "WeightsMSE",
    "activation_boundary",
    "activation_share",
    "adversarial",
    "alp_kd",
    "attention_kl",
    "attention_mse",
    "attention_scores_mse",
    "binned_regression",
    "bounded_regression",
    "contrastive",
    "decoupled_kd",
    "dist_inter",
    "dist_intra",
    "emd",
    "factor_transfer",
    "fitnets_hint",
    "gram_flow",
    "hard_binary_cross_entropy",
    "hard_cross_entropy",
    "hard_mse",
    "hard_relevance",
    "hidden_cosine",
    "hidden_mse",
    "input_gradient",
    "jensen_shannon",
    "label_smoothing",
    "linear_cka_loss",
    "listwise_kl",
    "logit_mse",
    "margin_mse",
    "mmd",
    "pkd",
    "pkt",
    "r_drop",
    "r_drop_bernoulli",
    "r_drop_mse",
    "relation",
    "replaced_tokens",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "similarity_kl",
    "similarity_preserving",
    "soft_target_bernoulli_kl",
    "soft_target_cross_entropy",
    "soft_target_kl",
    "soft_target_kl_top",
    "soft_target_mse",
    "standardised_logits",
    "variational_information",
    "virtual_teacher",
    "weights_mse",
]
