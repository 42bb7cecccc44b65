"""A smaller vocabulary: a tokenizer and a model cut down to the tokens that a corpus needs."""

from distil_nlp.models.vocabulary.embeddings import cut_embeddings
from distil_nlp.models.vocabulary.factorisation import embedding_field, factorised_tensors
from distil_nlp.models.vocabulary.trimming import kept_ids, trim_tokenizer

__all__ = ["cut_embeddings", "embedding_field", "factorised_tensors", "kept_ids", "trim_tokenizer"]
