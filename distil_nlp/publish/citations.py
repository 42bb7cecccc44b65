"""The papers behind the terms of a loss, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

_HINTON = """@article{hinton2015distilling,
  title   = {Distilling the Knowledge in a Neural Network},
  author  = {Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff},
  journal = {arXiv preprint arXiv:1503.02531},
  year    = {2015}
}"""
_SANH = """@article{sanh2019distilbert,
  title   = {{DistilBERT}, a distilled version of {BERT}: smaller, faster, cheaper and lighter},
  author  = {Sanh, Victor and Debut, Lysandre and Chaumond, Julien and Wolf, Thomas},
  journal = {arXiv preprint arXiv:1910.01108},
  year    = {2019}
}"""
_JIAO = """@article{jiao2019tinybert,
  title   = {{TinyBERT}: Distilling {BERT} for Natural Language Understanding},
  author  = {Jiao, Xiaoqi and Yin, Yichun and Shang, Lifeng and Jiang, Xin and Chen, Xiao and Li, Linlin and
             Wang, Fang and Liu, Qun},
  journal = {arXiv preprint arXiv:1909.10351},
  year    = {2019}
}"""
_WANG = """@article{wang2020minilm,
  title   = {{MiniLM}: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers},
  author  = {Wang, Wenhui and Wei, Furu and Dong, Li and Bao, Hangbo and Yang, Nan and Zhou, Ming},
  journal = {arXiv preprint arXiv:2002.10957},
  year    = {2020}
}"""
_OF_TERMS = {
    "soft_target_kl": _HINTON,
    "hidden_cosine": _SANH,
    "hidden_mse": _JIAO,
    "attention_kl": _WANG,
    "attention_mse": _JIAO,
}


def bibtex(terms: Iterable[str]) -> str:
    """The sources of the terms, and DistilBERT (Sanh et al. 2019), whose way of halving a BERT this is; each once."""
    return "\n\n".join(dict.fromkeys([*(_OF_TERMS[term] for term in terms if term in _OF_TERMS), _SANH]))
