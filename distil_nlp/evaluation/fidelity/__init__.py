"""Fidelity: agreement of a student with its teacher, whatever the labels are."""

from distil_nlp.evaluation.fidelity.agreement import CKA_ROWS, compare_models, compare_outputs
from distil_nlp.evaluation.fidelity.cka import linear_cka
from distil_nlp.evaluation.fidelity.outputs import expected_calibration_error

__all__ = ["CKA_ROWS", "compare_models", "compare_outputs", "expected_calibration_error", "linear_cka"]
