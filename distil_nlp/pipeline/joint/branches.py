"""ONE: branches over a shared trunk, taught by their gated sum (Lan et al. 2018, arXiv:1806.04606)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.losses.heads import FromHeads
from distil_nlp.models import StudentReport, build_student, choose_layers
from distil_nlp.models.architecture import ensemble_members
from distil_nlp.models.tails import Tail, join_tail
from distil_nlp.objective.heads import OWN_LOGITS, GatedLogits, LogitsOf
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline.joint.base import JointScheme, Judge, output_terms, ramped, validate_joint_plan
from distil_nlp.pipeline.joint.candidates import best_of, lower_layers, validate_equal_heads
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe.sections import StudentSection
from distil_nlp.signals.types import ProjectionInput
from distil_nlp.training.fit import Finished

_GATE = "gate"


class Gate(nn.Module):
    """Weights of the branches for each row, by the trunk's [CLS] state: softmax of a linear map, 1 / branches at first.

    The paper's code has a ReLU before the softmax; rows that it sets to 0 for all branches would stay at equal weights.
    It is left out here, and so is the normalisation over a batch, which would depend on how a step is cut up.

    Args:
        width: of the states.
        branches: their number.
    """

    def __init__(self, width: int, branches: int):
        super().__init__()
        self.map = nn.Linear(width, branches)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, states: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Return the weights, (batch, branches), from whole states (batch, seq, width)."""
        mask = inputs.get("attention_mask")
        rows = torch.arange(len(states), device=states.device)
        first = torch.zeros_like(rows) if mask is None else mask.long().argmax(1)
        return self.map(states[rows, first]).softmax(-1)


class Branches(JointScheme):
    """Branches of the student: copies of its last blocks and its head, over the blocks that they share.

    With z_e = Σ_i g_i · z_i of the gate g, the loss is Σ_i L_i + L_e + w · Σ_i T² · KL(p_e ‖ p_i) (arXiv:1806.04606,
    section 3): L are the objective's terms on outputs, on the logits of a branch or of the gated sum, and p_e
    gets no gradient from its branches' learning. Branches start from different layers of the teacher.

    Attributes:
        tails: the student's further branches, once `extend` has made them.
    """

    key = "branches"

    def __init__(self, student: StudentSection):
        super().__init__(student)
        assert student.branches is not None  # or there would be no such scheme
        self.section = student.branches
        self.tails: list[Tail] = []
        self._reports: list[StudentReport] = []

    def validate(self, plan: RunPlan) -> None:
        validate_joint_plan(plan, self.where)
        validate_equal_heads(plan, self.where)
        if self.student.name is not None:
            raise UserError(
                self.where,
                "a student that is made of the teacher's layers",
                f"student.name={self.student.name}",
                why="branches that all start from its last blocks would stay alike",
                fix="leave one of the two out",
            )

    def extend(self, objective: Objective, student: PreTrainedModel, teacher: PreTrainedModel, seed: int) -> Objective:
        depth, section = student.config.num_hidden_layers, self.section
        if section.blocks >= depth:
            raise UserError(
                f"{self.where}.blocks",
                f"fewer than the student's {depth}",
                str(section.blocks),
                why="branches would have no trunk in common",
                fix="lower it, or use student.peers",
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = [self._branch(number, student, teacher) for number in range(1, section.models)]
        self.tails, self._reports = [tail for tail, _ in built], [report for _, report in built]
        names = [f"branch_{number}" for number in range(2, section.models + 1)]
        heads = (OWN_LOGITS, *map(LogitsOf, names))
        together, weight = GatedLogits(_GATE, heads), ramped(section.weight, section.ramp)
        terms: list[Any] = list(objective.terms)
        for head in heads:
            terms += [term.of_head(head, head.name) for term in output_terms(objective) if head.name]
            name = f"{head.name}_from_all" if head.name else "from_all"
            terms.append(FromHeads(name, weight, head, [together], section.temperature))
        terms += [term.of_head(together, "all") for term in output_terms(objective)]
        source = ProjectionInput(depth - section.blocks - 1, "", "states")
        gate = Gate(student.config.hidden_size, section.models)
        modules: dict[str, nn.Module] = {**dict(zip(names, self.tails, strict=True)), _GATE: gate}
        joint = {name: (source, module) for name, module in modules.items()}
        return Objective(terms, objective.kind, objective.balance, {**objective.joint, **joint})

    def finish(self, student: PreTrainedModel, judge: Judge) -> Finished:
        depth = student.config.num_hidden_layers
        trunk = depth - self.section.blocks
        models = [student, *(join_tail(student, trunk, tail) for tail in self.tails)]
        starts = [{}, *({"initialisation": report.to_dict()} for report in self._reports)]
        return best_of(self.key, models, judge, [{"layers": depth, **start} for start in starts])

    def _branch(self, number: int, student: PreTrainedModel, teacher: PreTrainedModel) -> tuple[Tail, StudentReport]:
        """Return a branch, and where its weights are from: the layers `number` below those of the student's own."""
        teacher, depth = ensemble_members(teacher)[0], student.config.num_hidden_layers
        own, trunk = choose_layers(self.student.layers, teacher.config.num_hidden_layers, depth), self._trunk(depth)
        layers: Any = "random"
        if own is not None:
            layers = [*own[:trunk], *lower_layers(own[trunk:], number)]
            self._require_difference(own[trunk:], number)
        model, report = build_student(
            teacher,
            layers,
            num_layers=depth,
            architecture=self.student.architecture,
            config_changes=self.student.config,
        )
        tail = Tail(model, self.section.blocks)
        if not tail.is_batch_first:
            raise UserError(
                self.where,
                "states of (batch, tokens, width)",
                f"another order in {type(model).__name__}",
                why="the gate reads the state of the first token",
                fix="take an encoder such as BERT, RoBERTa or ModernBERT",
            )
        return tail, report

    def _trunk(self, depth: int) -> int:
        return depth - self.section.blocks

    def _require_difference(self, own: list[int], number: int) -> None:
        if lower_layers(own, number) == lower_layers(own, number - 1):
            raise UserError(
                f"{self.where}.models",
                f"at most {number}",
                str(self.section.models),
                why="the teacher has no more layers below that a further branch could start from",
                fix="lower it",
            )
