"""`DistillationTrainer`: a `transformers.Trainer` whose loss is an `Objective`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.state import AcceleratorState
from accelerate.utils import extract_model_from_parallel, set_seed
from torch import Tensor
from transformers import PreTrainedModel, ProgressCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from distil_nlp.data.augmentation.cutoff import Cutoff
from distil_nlp.data.augmentation.mixup import PARTNER, SHARE, Mixup, MixupCollator
from distil_nlp.data.row_sets import RowCollator
from distil_nlp.errors import UserError
from distil_nlp.kernels.fallback import Kernels
from distil_nlp.models import label_outputs
from distil_nlp.models.linear_layers import encoder_linear_layers
from distil_nlp.objective import ROWS_PER_PROCESS, ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.signals.recorder import PROJECTIONS
from distil_nlp.tasks import Head
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.changing import ChangingTeacher
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.source import TeacherSource
from distil_nlp.teachers.sources import teacher_source
from distil_nlp.training.balancing import BalancingCallback
from distil_nlp.training.changing_teacher import ChangingTeacherCallback
from distil_nlp.training.checkpoints import CheckpointGuard
from distil_nlp.training.checks import (
    set_required_arguments,
    validate_averaged_teacher,
    validate_checkpointing,
    validate_double_backward,
    validate_joint,
    validate_settings,
    validate_sharding,
    validate_teacher_outputs,
)
from distil_nlp.training.compile import compile_blocks
from distil_nlp.training.dashboards import group_terms
from distil_nlp.training.dataloaders import EpochDataLoaders
from distil_nlp.training.effective_weights import EffectiveWeights, LinearChange
from distil_nlp.training.energy import track_country
from distil_nlp.training.evaluation_loop import ExactEvaluation
from distil_nlp.training.extension import Extension, RunningExtension, RunningExtensions, TrainingSetup
from distil_nlp.training.further_passes import FurtherPass, FurtherPasses
from distil_nlp.training.gradient_probe import GradientProbe
from distil_nlp.training.models import prepare_models, validate_places
from distil_nlp.training.preemption import PreemptionCallback
from distil_nlp.training.progress import TermProgressCallback
from distil_nlp.training.saving import StudentSaving
from distil_nlp.training.sharding import Sharding
from distil_nlp.training.steps import CountedSteps
from distil_nlp.training.teacher_student import TeacherStudent
from distil_nlp.training.term_logging import TermLogging
from distil_nlp.training.token_counter import TokenCounter

_CHUNK_BYTES = {"cpu": 2**24, "gpu": 2**29}
"""Memory for one model's logits in fp32 that the losses on a vocabulary hold at a time."""


class DistillationTrainer(TermLogging, ExactEvaluation, EpochDataLoaders, StudentSaving, CountedSteps, Trainer):
    """A `Trainer` that makes a student match a teacher, by the terms of an objective.

    ```python
    trainer = DistillationTrainer(
        model=student,
        teacher=teacher,
        objective=Objective([SoftTargetKL(5.0), HiddenCosine(1.0)], "mlm"),
        args=TrainingArguments("runs/mine"),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer),
    )
    trainer.train()
    trainer.detach().save_pretrained("runs/mine/student")
    ```

    The loss of an optimiser step is Σ_terms weight · (Σ rows ÷ the term's rows in the whole step, over all
    micro-batches and processes), so that 8×1, 4×2 and two processes give the same gradient. Each term is
    logged by its own name, in training and evaluation, unweighted.

    Args:
        model: the student, with the head that the objective's kind needs; or the folder or name on the Hub of one,
            which is loaded (weights as safetensors, no code of its own).
        args: `Trainer`'s own; some are set, see `set_required_arguments`.
        objective: the terms; bound to the two models here, and for the student's kind of task where it names none.
        teacher: a model, the folder or name of one, or a `TeacherSource`; None if no term needs it. A model is frozen,
            in eval mode and in its own dtype; it is moved to the device, and never wrapped, trained or saved.
        data_collator: any; it is wrapped to draw the rows that the terms read. Columns that neither model knows do
            not reach it.
        cache: where the teacher's outputs for the training rows are kept. They are read from there, or computed
            first; the teacher itself then runs in evaluation alone.
        gradients_every: steps between two measurements of the terms' gradients (`GradientProbe`); none if None.
        cutoff: drops tokens of the training rows of a task each time they are read; teacher and student read the same.
            Needs rows with a length, and no `cache`.
        mixup: mixes training rows of a task with others, as `cutoff` in all else.
        extensions: what is done besides: an average of the student's weights (`EMA`), the teacher's layers in place of
            the student's by chance (`Replacing`), a wider net around it (`NetAug`), zeros among its weights
            (`Sparsity`), int8 in training (`QuantizationAware`), or one's own `Extension`.
        kernels: what computes the losses on a vocabulary, `attention_kl`, and the residual sums and layer norms of both
            models: `torch`; `triton`, kernels of our own on a GPU; or `auto`, Triton where it is there.
        **kwargs: `Trainer`'s own.

    Attributes:
        source: gives the teacher's signals.
        teacher: the model behind the source; None if there is none.
        teacher_student: runs both models on a batch.
        probe: measures gradients of terms; None if nothing needs it.
        token_counter: counts the tokens that go through all models in training.
        extensions: those at work; `extensions.of(WeightAverage)` is the one of a kind.
        further: passes of a micro-batch besides the student's own, which extensions ask for.
        runs_teacher: whether the teacher's layers run in training, whatever is cached of its outputs.

    Raises:
        UserError: for several GPUs without a launcher, for arguments that would change the objective silently
            (label smoothing, NEFTune, Liger), and whatever `Objective.bind` raises.
    """

    loss_is_scaled_for_ga = True
    extensions = RunningExtensions()
    further = FurtherPasses()
    _undecayed: frozenset[str] = frozenset()
    runs_teacher = False
    objective: Objective

    def __init__(
        self,
        model: PreTrainedModel | str | None = None,
        args: TrainingArguments | None = None,
        objective: Objective | None = None,
        teacher: PreTrainedModel | Ensemble | TeacherSource | str | None = None,
        data_collator: Callable | None = None,
        cache: CacheConfig | None = None,
        gradients_every: int | None = None,
        cutoff: Cutoff | None = None,
        mixup: Mixup | None = None,
        extensions: Sequence[Extension] = (),
        kernels: Kernels = "torch",
        **kwargs: Any,
    ):
        model, teacher = prepare_models(model, args, objective, teacher, kwargs.get("model_init"))
        assert args is not None  # or `prepare_models` has raised UserError
        assert objective is not None
        validate_settings(args, objective, model, cache, {"cutoff": cutoff, "mixup": mixup})
        set_required_arguments(args)
        self.objective, self.cutoff, self.mixup = objective, cutoff, mixup
        self.source = teacher_source(teacher if objective.needs_teacher else None, cache)
        replaced = self.source.model if isinstance(teacher, TeacherSource) else teacher
        self.teacher = self.source.model
        self._bind(model, args.seed)
        setup = self._setup(model, replaced, args, extensions)
        further = {name: module for one in setup.extensions for name, module in one.modules(setup).items()}
        self.teacher_student = TeacherStudent(model, self.source, objective, mixup is not None, further)
        joint = [module for _, module in objective.joint.values()]
        self.token_counter = TokenCounter(model, self.source.models, joint, self.source.encodings)
        self.teacher_student.add_hooks(self.token_counter)
        if args.deepspeed_plugin is not None:
            AcceleratorState._reset_state()  # accelerate allows DeepSpeed one trainer, even after that has finished
        settings = dict(vars(model.config))
        super().__init__(model=_unprepared(model), args=args, data_collator=data_collator, **kwargs)
        if "use_cache" in settings:  # Trainer sets it, for decoders, and would leave it in the student's configuration
            model.config.use_cache = settings["use_cache"]
        self.model_accepts_loss_kwargs = True  # transformers < 5.20: the loss is scaled for accumulation here
        self._prepare(setup, kernels, gradients_every)

    def _bind(self, student: PreTrainedModel, seed: int) -> None:
        """Bind the objective to both models, and the student's configuration to the objective's kind of task."""
        objective, source = self.objective, self.source
        objective.aligned_only(any(source.encodings[:1]))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # the same projections in every process and every run
            objective.bind(source.shape, ModelShape.of(student.config))
        objective.answered_only(source.has_gaps)
        if source.model is not None and objective.request("teacher").logits:
            validate_teacher_outputs(source.model, objective.kind)
        label_outputs(student.config, Head(objective.kind))

    def _setup(
        self, student: PreTrainedModel, replaced: Any, args: TrainingArguments, extensions: Sequence[Extension]
    ) -> TrainingSetup:
        """Return what is known of the training, once all of it goes together."""
        request, sharding, is_joint = self.objective.request("student"), Sharding.of(args), bool(self.objective.joint)
        working = [one for one in extensions if one.is_on]
        setup = TrainingSetup(student, replaced, args, request, is_joint, bool(sharding), working)
        for one in working:
            one.validate(setup)
        validate_sharding(request, sharding)
        validate_joint(is_joint, args, "Objective.joint")
        if isinstance(self.source, ChangingTeacher) and self.source.reads_weights:
            validate_averaged_teacher(bool(sharding))
        lacks_gradients = not request.logits or any(one.skips_parameters for one in working)
        if lacks_gradients and args.ddp_find_unused_parameters is None:
            args.ddp_find_unused_parameters = True  # the head, or what does not run, gets no gradient
        validate_checkpointing(args, request)
        validate_double_backward(args, request)
        return setup

    def _prepare(self, setup: TrainingSetup, kernels: Kernels, gradients_every: int | None) -> None:
        """Add to a `Trainer` that is built what this one does besides: hooks, kernels, collator, callbacks."""
        args, balance = self.args, self.objective.balance
        track_country(self)
        group_terms(self)
        if args.torch_compile:
            teachers = [] if self.teacher is None else [self.teacher]
            compile_blocks([setup.student, *teachers], args, self.accelerator)
        self.runs_teacher = any(one.runs_teacher for one in setup.extensions)
        self.extensions = self._begin(setup)
        self.further = FurtherPasses(self.extensions)
        self._undecayed = frozenset[str]().union(*(one.undecayed for one in setup.extensions))
        self.data_collator = self._wrap(self.data_collator)
        self.source.to(args.device)
        self.teacher_student.use_kernels(kernels, args.device, is_compiled=args.torch_compile)
        if balance is not None and balance.kind == "gradient_norm":
            gradients_every = balance.every
        self.probe = GradientProbe(gradients_every) if gradients_every else None
        self._balancing = None if balance is None else BalancingCallback(self, len(self.objective.terms), args.device)
        self._add_callbacks()

    def _add_callbacks(self) -> None:
        """Add what follows training, in an order that counts: checkpoints are guarded when all else has changed."""
        self._preemption, follows = PreemptionCallback(self), self.source
        self._changing_teacher = (
            ChangingTeacherCallback(self, follows) if isinstance(follows, ChangingTeacher) else None
        )
        followers = (*self.extensions, self._balancing, self._changing_teacher, CheckpointGuard(self), self._preemption)
        for callback in followers:
            if isinstance(callback, TrainerCallback):
                self.add_callback(callback)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(TermProgressCallback())

    def _begin(self, setup: TrainingSetup) -> RunningExtensions:
        """Put the extensions on this trainer; those that change weights share one patch of the linear layers."""
        running: list[RunningExtension] = [one.begin(self, setup) for one in setup.extensions]
        if changes := [one for one in running if isinstance(one, LinearChange)]:
            running.append(EffectiveWeights(encoder_linear_layers(setup.student, "student"), changes))
        for one in running:
            self.teacher_student.add_hooks(one)
        return RunningExtensions(running)

    def _wrap(self, collator: Callable) -> RowCollator:
        """Return the collator with draws of the rows that terms read, and with mixed rows where there is a `mixup`."""
        objective = self.objective
        known = self.teacher_student.inputs | {"labels", "label", "label_ids"} | objective.kind.columns
        if self.mixup is not None:
            collator, known = MixupCollator(collator), known | {PARTNER, SHARE}
        chunk = (
            _chunk_rows(self.teacher_student.student, self.args, objective) if objective.kind.predicts_words else None
        )
        return RowCollator(collator, objective.row_sets(chunk), known, seed=self.args.seed)

    def detach(self) -> PreTrainedModel:
        """Remove everything that this training added to both models, and return the plain student.

        The teacher is as trainable, and in the mode, as before, unless another trainer still uses it. The student
        stays in the mode and on the device of training.
        """
        self.teacher_student.remove_hooks()
        student = _unprepared(self.accelerator.unwrap_model(self.model))
        return student

    def _require_hooks(self) -> None:
        """Raise UserError after `detach`; let the student carry this trainer's projections."""
        if not self.teacher_student.is_attached:
            raise UserError(
                "DistillationTrainer",
                "a trainer whose hooks are on the models",
                "one that was detached",
                why="it could not capture what the terms compare",
                fix="build another trainer of the same models, or call detach() last",
            )
        self.teacher_student.hold_projections()

    def student_state(self) -> dict[str, Tensor]:
        """Return the student's weights, whole on the main process even if sharded. Every process must call this."""
        state = self.accelerator.get_state_dict(self.model_wrapped)
        return {name: value for name, value in state.items() if not name.startswith(PROJECTIONS)}

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Run `Trainer.train`, which saves a checkpoint and ends on SIGTERM.

        Dropout is drawn from `args.seed`, whatever has run since the trainer was built, such as another trainer.

        Raises:
            UserError: after `detach`.
            Preempted: once that is saved.
        """
        self._require_hooks()
        set_seed(self.args.seed)
        with self._preemption.listening():
            output = super().train(*args, **kwargs)
        for one in self.extensions:
            one.end()
        return output

    def hyperparameter_search(self, *args: Any, **kwargs: Any) -> Any:
        """Raise UserError: a trainer has one student.

        Raises:
            UserError: always.
        """
        validate_places(None, self.args, self.objective, self.teacher)

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Return the names of the parameters that decay, without those that an extension exempts."""
        names = super().get_decay_parameter_names(model)
        return [name for name in names if self._undecayed.isdisjoint(name.split("."))]

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Run the loop of `ExactEvaluation`, on the student as extensions want it evaluated."""
        with self.extensions.evaluated():
            return super().evaluation_loop(*args, **kwargs)

    # The loss ----------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor]:
        """Return the micro-batches of one optimiser step and its row counts over all processes, (terms,)."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        self.tokens_seen += sum(batch["tokens"] for batch in batches)
        if self.accelerator.num_processes > 1:
            self._gather_row_counts(batches)
        counted = [self.objective.counts(batch["rows"], self.objective.passes) for batch in batches]
        counts = torch.tensor(counted, dtype=torch.float32)
        counts = counts.sum(0) if batches else torch.zeros(len(self.objective.terms))
        if device.type == "cuda":
            counts = counts.pin_memory()
        counts = self.accelerator.reduce(counts.to(device, non_blocking=True), "sum")
        self._train_meter.begin_step(counts)
        for one in self.extensions:
            one.begin_step(self.state.global_step, self.state.max_steps)
        return batches, counts

    def _gather_row_counts(self, batches: list[dict[str, Any]]) -> None:
        """Add the row counts of each process to each micro-batch, for terms that compare rows of all processes.

        The host waits for the device here, and nowhere else in a step.
        """
        names = self.objective.gathered_sets()
        if not names or not batches:
            return
        own = [[batch["rows"][name].numel() for name in names] for batch in batches]
        sizes = self.accelerator.gather(torch.tensor([own], device=self.args.device)).permute(1, 2, 0).tolist()
        for batch, counts in zip(batches, sizes, strict=True):
            batch[ROWS_PER_PROCESS] = dict(zip(names, counts, strict=True))
            batch["rows"]["batch"] = torch.arange(int(sum(counts[0]) > 1))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """Return Σ weight · sum ÷ count of this micro-batch, times the number of processes, over which DDP averages.

        Args:
            model: the student, in whatever wraps it.
            inputs: a batch of the `RowCollator`.
            return_outputs: return the student's logits too.
            num_items_in_batch: row counts of the step from `get_batch_samples`, (terms,); without them (a caller's own
                loop) the batch counts as the whole step.
        """
        counts = num_items_in_batch
        if counts is None:
            counted = self.objective.counts(inputs["rows"], self.objective.passes)
            counts = torch.tensor(counted, dtype=torch.float32, device=self.args.device)
            self._train_meter.begin_step(counts)
        factors = self.objective.row_weights(self._progress, counts)
        if self.further.now is not None:
            return self._further_loss(self.further.now, model, inputs, factors)
        for one in self.extensions:
            one.begin_forward(self.state.global_step, self._progress)
        if self.probe is not None and self.probe.is_due(self.state.global_step):
            self._probe_gradients(model, inputs, factors)
        with self.token_counter.counting(inputs):
            loss, sums, student = self._compute(model, inputs, factors)
        self.source.observe(inputs, student)
        values = sums / counts.clamp_min(1)
        self._train_meter.add(values)
        if self._balancing is not None:
            self._balancing.add(values, counts)
        loss = loss * self.accelerator.num_processes
        return (loss, {"logits": student.logits}) if return_outputs else loss

    def _further_loss(
        self, one: FurtherPass, model: torch.nn.Module, inputs: dict[str, Any], factors: Tensor
    ) -> Tensor:
        """Return the weighted objective of a further pass; what observes the student does not see it."""
        with self.token_counter.counting(inputs):
            loss = self._compute(model, inputs, factors)[0]
        one.add(loss)
        return one.weight * loss * self.accelerator.num_processes

    def _compute(self, model: torch.nn.Module, inputs: dict[str, Any], factors: Tensor) -> tuple[Tensor, Tensor, Any]:
        passes = self.objective.passes
        return self.teacher_student.compute(model, inputs, self._progress, factors, passes=passes)

    def _probe_gradients(self, model: torch.nn.Module, inputs: dict[str, Any], factors: Tensor) -> None:
        def forward(factors: Tensor) -> Tensor:
            return self._compute(model, inputs, factors)[0]

        assert self.probe is not None
        step, names, recorder = self.state.global_step, self.objective.names, self.teacher_student.recorder
        with self.accelerator.no_sync(model):
            self.probe.measure(step, names, factors, recorder, forward)

    @property
    def _progress(self) -> float:
        """Progress of schedules: 0 at the first step, 1 at the last."""
        return self.progress_at(self.state.global_step)

    def progress_at(self, step: int) -> float:
        """Return the progress of schedules at a step: 0 at the first, 1 at the last."""
        return step / max(self.state.max_steps - 1, 1)


def _unprepared(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model without what accelerate wrapped it in, for example for an evaluation before.

    A model that is marked as prepared would not be wrapped in DDP again, and train without exchanging gradients.
    """
    model = extract_model_from_parallel(model, keep_fp32_wrapper=False)
    model.__dict__.pop("_is_accelerate_prepared", None)
    return model


def _chunk_rows(model: PreTrainedModel, args: TrainingArguments, objective: Objective) -> int:
    """Return of how many of a batch's rows the logits over the vocabulary are computed at a time, in each pass."""
    size = _CHUNK_BYTES["cpu" if args.device.type == "cpu" else "gpu"]
    return max(size // (4 * model.config.vocab_size * objective.passes), 1)
