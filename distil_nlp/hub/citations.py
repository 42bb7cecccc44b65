"""The papers behind the terms of a loss, as BibTeX."""

from __future__ import annotations

from collections.abc import Iterable

from distil_nlp.losses.registry import TERMS

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
_PAPERS = {"1503.02531": _HINTON, "1910.01108": _SANH, "1909.10351": _JIAO, "2002.10957": _WANG}


def bibtex(terms: Iterable[str]) -> str:
    """The sources of the terms, and DistilBERT (Sanh et al. 2019), whose way of halving a BERT this is; each once."""
    papers = [TERMS[term].paper for term in terms if term in TERMS]
    return "\n\n".join(dict.fromkeys([*(_PAPERS[paper] for paper in papers if paper in _PAPERS), _SANH]))
