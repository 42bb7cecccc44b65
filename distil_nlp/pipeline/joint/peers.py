"""Deep mutual learning (Zhang et al. 2018, arXiv:1706.00384): students train together and learn from each other."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.losses.heads import FromHeads
from distil_nlp.models import StudentReport, build_student, choose_layers
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.objective.heads import OWN_LOGITS, LogitsOf
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.joint.base import JointScheme, Judge, output_terms, ramped, validate_joint_plan
from distil_nlp.pipeline.joint.candidates import best_of, lower_layers, validate_equal_heads
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe.sections import PeerSection, StudentSection
from distil_nlp.signals.types import ProjectionInput
from distil_nlp.training.fit import Finished


class Peer(nn.Module):
    """Another student within the student's forward: inputs by name → logits.

    Args:
        model: with a head of the student's kind.
    """

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.model = model

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the logits, (batch, classes)."""
        return self.model(**inputs).logits


class Peers(JointScheme):
    """Peers of the student, each a whole model.

    Peer i minimises L_i + w · mean over j ≠ i of T² · KL(p_j ‖ p_i) (arXiv:1706.00384, section 3): L_i are the
    objective's terms on outputs on its logits, and p_j gets no gradient. All peers take their step at once; the paper's
    take turns. Peers differ in the teacher's layers that they start from and in their dropout; those of a checkpoint in
    their dropout alone.

    Attributes:
        peers: the student's peers, once `extend` has made them.
    """

    key = "peers"

    def __init__(self, student: StudentSection):
        super().__init__(student)
        assert student.peers is not None  # or there would be no such scheme
        self.section = student.peers
        self.peers: list[PreTrainedModel] = []
        self._reports: list[StudentReport] = []

    def validate(self, plan: RunPlan) -> None:
        validate_joint_plan(plan, self.where)
        validate_equal_heads(plan, self.where)
        if plan.recipe.data.augmentation.mixup is not None:
            raise UserError(
                self.where,
                "no data.augmentation.mixup",
                "it",
                why="the embeddings of the first alone would be mixed",
                fix="leave one of the two out",
            )
        if self.student.name is not None and not isinstance(self.section.models, int):
            raise UserError(
                self.where,
                "a number of peers for a student from a checkpoint",
                "shapes",
                why="each peer is a copy of it",
                fix="give a number, or leave student.name out",
            )

    def extend(self, objective: Objective, student: PreTrainedModel, teacher: PreTrainedModel, seed: int) -> Objective:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = [self._peer(number, shape, student, teacher) for number, shape in enumerate(self._shapes(), 1)]
        self.peers, self._reports = [peer for peer, _ in built], [report for _, report in built]
        heads = [OWN_LOGITS, *(LogitsOf(f"peer_{number + 2}") for number in range(len(built)))]
        weight = ramped(self.section.weight, self.section.ramp)
        terms: list[Any] = list(objective.terms)
        for head in heads:
            others = [other for other in heads if other != head]
            name = f"{head.name}_from_peers" if head.name else "from_peers"
            terms += [term.of_head(head, head.name) for term in output_terms(objective) if head.name]
            terms.append(FromHeads(name, weight, head, others, self.section.temperature))
        inputs = ProjectionInput(0, "", "inputs")
        joint = {f"peer_{number}": (inputs, Peer(peer)) for number, peer in enumerate(self.peers, 2)}
        return Objective(terms, objective.kind, objective.balance, {**objective.joint, **joint})

    def finish(self, student: PreTrainedModel, judge: Judge) -> Finished:
        models = [student, *self.peers]
        starts: list[dict[str, Any]] = [{}, *({"initialisation": report.to_dict()} for report in self._reports)]
        facts = [
            {"layers": model.config.num_hidden_layers, **start} for model, start in zip(models, starts, strict=True)
        ]
        return best_of(self.key, models, judge, facts)

    def _shapes(self) -> list[PeerSection]:
        """Return the shapes of the student's peers."""
        models = self.section.models
        return [PeerSection()] * (models - 1) if isinstance(models, int) else models

    def _peer(
        self, number: int, shape: PeerSection, student: PreTrainedModel, teacher: PreTrainedModel
    ) -> tuple[PreTrainedModel, StudentReport]:
        """Return a peer, and where its weights are from; at the student's depth they are the layers below."""
        if self.student.name is not None:
            return _copy(student, self.where), StudentReport(None, source=self.student.name)
        teacher = ensemble_members(teacher)[0]
        depth = shape.num_layers or (None if isinstance(shape.layers, list) else student.config.num_hidden_layers)
        layers: Any = shape.layers
        if layers is None:
            own = choose_layers(_of_depth(self.student, depth), teacher.config.num_hidden_layers, depth)
            is_alike = depth == student.config.num_hidden_layers
            layers = "random" if own is None else lower_layers(own, number) if is_alike else own
        peer, report = build_student(
            teacher,
            layers,
            num_layers=depth,
            architecture=self.student.architecture,
            config_changes=self.student.config if shape.config is None else shape.config,
        )
        for name in ("id2label", "label2id", "problem_type"):
            setattr(peer.config, name, copy.deepcopy(getattr(student.config, name)))
        return peer, report


def _of_depth(student: StudentSection, depth: int | None) -> Any:
    """Return the student's choice of layers for a peer; that of a list is `every_other` at another depth."""
    has_other_depth = isinstance(student.layers, list) and len(student.layers) != depth
    return "every_other" if has_other_depth else student.layers


def _copy(student: PreTrainedModel, where: str) -> PreTrainedModel:
    """Return a copy of a student, which must have dropout."""
    fields = vars(student.config).items()
    rates = [value for name, value in fields if "dropout" in name and isinstance(value, float)]
    if not any(rates):
        raise UserError(
            where,
            "a checkpoint with dropout",
            "0 in its config.json",
            why="copies of it would stay equal, and learn nothing from each other",
            fix="leave student.name out, so that peers start from other layers of the teacher",
        )
    return copy.deepcopy(student)
