"""Publishing a run: the model card, and the upload of the student to the Hub. Nothing is trained here."""

from distil_nlp.hub.card import is_written_card, render_card, write_card
from distil_nlp.hub.repository import (
    UploadPlan,
    check_repository,
    plan_space_upload,
    plan_upload,
    push,
    push_command,
    upload,
)
from distil_nlp.hub.sources import teacher_metadata

__all__ = [
    "UploadPlan",
    "check_repository",
    "is_written_card",
    "plan_space_upload",
    "plan_upload",
    "push",
    "push_command",
    "render_card",
    "teacher_metadata",
    "upload",
    "write_card",
]
