"""Conversion of BERT weights to DistilBERT weights."""

from __future__ import annotations

from torch import Tensor
from transformers import (
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForQuestionAnswering,
    DistilBertForSequenceClassification,
    DistilBertForTokenClassification,
    DistilBertModel,
    PreTrainedModel,
)

from distil_nlp.errors import UserError
from distil_nlp.models.sentence_encoder import SETTINGS, SentenceEncoder, sentence_encoder_class

_BLOCK = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
_KINDS = ("weight", "bias")
_HEADS: dict[type, str] = {
    DistilBertForQuestionAnswering: "qa_outputs",
    DistilBertForTokenClassification: "classifier",
}
"""Class → its head on tokens."""
_TABLES = ("bert.embeddings.position_embeddings.weight", "bert.embeddings.token_type_embeddings.weight")
_AROUND = {
    "distilbert.embeddings.word_embeddings.weight": "bert.embeddings.word_embeddings.weight",
    "distilbert.embeddings.LayerNorm.weight": "bert.embeddings.LayerNorm.weight",
    "distilbert.embeddings.LayerNorm.bias": "bert.embeddings.LayerNorm.bias",
    "vocab_transform.weight": "cls.predictions.transform.dense.weight",
    "vocab_transform.bias": "cls.predictions.transform.dense.bias",
    "vocab_layer_norm.weight": "cls.predictions.transform.LayerNorm.weight",
    "vocab_layer_norm.bias": "cls.predictions.transform.LayerNorm.bias",
    "vocab_projector.bias": "cls.predictions.bias",
    "dense.weight": "dense.weight",
    "dense.bias": "dense.bias",
}


def distilbert_sources(teacher: PreTrainedModel, student: PreTrainedModel, layers: list[int]) -> dict[str, Tensor]:
    """Return student name → teacher tensor, from BERT to DistilBERT classes.

    A head on tokens is included; a classifier of texts is not: BERT's reads the pooler's tanh, DistilBERT's a ReLU.
    """
    state = teacher.state_dict()
    sources = {name: state[source] for name, source in _AROUND.items() if source in state}
    sources |= {name: state[name] for name in _names_of_head(student)}
    positions, segment = state[_TABLES[0]], state[_TABLES[1]][0]
    sources["distilbert.embeddings.position_embeddings.weight"] = positions + segment
    for i, teacher_layer in enumerate(layers):
        for name, source in _BLOCK.items():
            for kind in _KINDS:
                tensor = state[f"bert.encoder.layer.{teacher_layer}.{source}.{kind}"]
                sources[f"distilbert.transformer.layer.{i}.{name}.{kind}"] = tensor
    return sources


def distilbert_origins(student: PreTrainedModel, layers: list[int]) -> set[str]:
    """Return the names of the teacher's parameters that `distilbert_sources` reads."""
    blocks = {f"bert.encoder.layer.{i}.{part}.{kind}" for i in layers for part in _BLOCK.values() for kind in _KINDS}
    return {*_AROUND.values(), *_TABLES, *blocks, *_names_of_head(student)}


def _names_of_head(student: PreTrainedModel) -> set[str]:
    """Return the names of the parameters of a head on tokens, which are the same in both families."""
    head = _HEADS.get(type(student))
    return {f"{head}.{kind}" for kind in _KINDS} if head else set()


def distilbert_config(teacher: PreTrainedModel) -> DistilBertConfig:
    config = teacher.config
    if config.model_type != "bert":
        raise UserError(
            "student.architecture=distilbert",
            "a BERT teacher",
            config.model_type,
            why="its parts have no counterpart in DistilBERT",
            fix="use student.architecture=same",
        )
    return DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        activation=config.hidden_act,
        initializer_range=config.initializer_range,
        pad_token_id=config.pad_token_id,
        id2label=config.id2label,
        label2id=config.label2id,
        problem_type=config.problem_type,
        **({SETTINGS: getattr(config, SETTINGS)} if hasattr(config, SETTINGS) else {}),
    )


_CLASSES = {
    "ForMaskedLM": DistilBertForMaskedLM,
    "ForQuestionAnswering": DistilBertForQuestionAnswering,
    "ForSequenceClassification": DistilBertForSequenceClassification,
    "ForTokenClassification": DistilBertForTokenClassification,
}


def distilbert_class(teacher: PreTrainedModel) -> type[PreTrainedModel]:
    if isinstance(teacher, SentenceEncoder):
        return sentence_encoder_class(DistilBertModel)
    name = type(teacher).__name__
    return next((cls for end, cls in _CLASSES.items() if name.endswith(end)), DistilBertForSequenceClassification)
