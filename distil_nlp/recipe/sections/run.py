"""The section `run`: settings that do not change the student."""

from __future__ import annotations

from pydantic import PositiveInt

from distil_nlp.kernels.fallback import Kernels
from distil_nlp.recipe.sections.base import NonEmpty, Section


class RunSection(Section):
    """Settings that do not change the student, and may differ when a run resumes.

    Attributes:
        overwrite: move an earlier run in the output folder to `<folder>.previous`.
        gradients_every: steps between two measurements of gradient norms and gradient conflict; null for none.
        accept_weak_teacher: distil a teacher that scores no better than a guess too.
        report: write `report.html` and its plots at the end; `distil-nlp make-report` writes them later.
        outputs_folder: keep the outputs of models that are not trained here (the teacher, the untrained copy) on the
            evaluation rows in this folder, so that further runs need not ask again; null for none.
        kernels: what computes the losses on a vocabulary, `attention_kl`, and the residual sums and layer norms of both
            models: `torch`; `triton`, kernels of our own on a GPU; or `auto`, Triton where it is there.
    """

    overwrite: bool = False
    gradients_every: PositiveInt | None = None
    accept_weak_teacher: bool = False
    report: bool = True
    outputs_folder: NonEmpty | None = None
    kernels: Kernels = "torch"
