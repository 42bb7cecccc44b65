"""`DistillationTrainer`: exact reduction, an untouched teacher, honest evaluation, real checkpoints."""

import fcntl
import json
import math
import os
import pty
import re
import select
import struct
import termios
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from transformers import DataCollatorForLanguageModeling, Trainer, TrainerCallback, TrainerState, TrainingArguments

from distil_nlp.errors import UserError
from distil_nlp.losses import attention_maps
from distil_nlp.losses.activations import ActivationBoundary
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine, HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.models import build_student
from distil_nlp.objective import ModelShape
from distil_nlp.objective.objective import Objective
from distil_nlp.objective.schedule import Schedule
from distil_nlp.signals.recorder import PROJECTIONS
from distil_nlp.training import trainer as training
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.checks import validate_arguments
from distil_nlp.training.compile import compiled_graphs
from distil_nlp.training.progress import TermProgressCallback
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.no_sync import NoSync
from tests.helpers.training import StopAt, all_terms, curve, label_set, task_rows, text_rows, trainer

CHECKPOINTING = "activation_checkpointing"
if CHECKPOINTING not in TrainingArguments.__dataclass_fields__:
    CHECKPOINTING = "gradient_checkpointing"  # its name before transformers 5.20


class KeepGradients(TrainerCallback):
    """Remembers the gradient of the first optimiser step, before it is clipped away by the step."""

    def __init__(self):
        self.gradients: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if not self.gradients:
            self.gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def first_gradient(tmp_path, batch, accumulation, kind="mlm", **arguments):
    keep = KeepGradients()
    model = tiny.mlm_model(2, seed=1) if kind == "mlm" else tiny.classifier(2, seed=1)
    teacher = tiny.mlm_model(4) if kind == "mlm" else tiny.classifier(4)
    trainer(
        tmp_path, model, teacher, kind=kind, callbacks=[keep], per_device_train_batch_size=batch, max_grad_norm=0,
        gradient_accumulation_steps=accumulation, max_steps=1, **arguments,
    ).train()  # fmt: skip
    return keep.gradients


def assert_close(ours, theirs, tolerance=2e-6):
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], atol=tolerance, rtol=1e-4), name


@pytest.mark.parametrize("kind", ["mlm", "classification"])
@pytest.mark.parametrize(("batch", "accumulation"), [(4, 2), (2, 4), (1, 8)])
def test_accumulation_gives_the_gradient_of_the_whole_batch(tmp_path, kind, batch, accumulation):
    """Prevents a loss that grows with accumulation, and means of means over ragged micro-batches."""
    assert_close(first_gradient(tmp_path, batch, accumulation, kind), first_gradient(tmp_path, 8, 1, kind))


def test_the_last_short_micro_batch_weighs_by_its_rows(tmp_path):
    """Prevents equal weights for unequal micro-batches: 24 rows as 7+7+7+3 equal 24 at once."""
    assert_close(first_gradient(tmp_path, 7, 4), first_gradient(tmp_path, 24, 1))


def test_loss_and_gradient_are_those_of_naive_float64(tmp_path):
    """Prevents a reduction that is consistent with itself and wrong: one batch against plain formulas."""
    student, teacher = tiny.mlm_model(2, seed=1), tiny.mlm_model(4)
    run = trainer(
        tmp_path, student, teacher, [SoftTargetKL(5.0, 2.0, "all"), HardLabel(2.0), HiddenCosine(1.0, "last")]
    )
    batch = run.data_collator(text_rows())
    run.compute_loss(run.model, batch).backward()
    ours = {name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None}
    run.detach()

    student.double().zero_grad()
    teacher.double()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        theirs = teacher(**inputs, output_hidden_states=True)
    mine = student(**inputs, output_hidden_states=True)
    seen, masked = batch["attention_mask"].bool(), batch["labels"] != -100
    q, p = (F.log_softmax(one.logits[seen] / 2, -1) for one in (mine, theirs))
    kl = 4 * (p.exp() * (p - q)).sum(-1).mean()
    hard = F.cross_entropy(mine.logits[masked], batch["labels"][masked])
    cosine = (1 - F.cosine_similarity(mine.hidden_states[-1][seen], theirs.hidden_states[-1][seen], dim=-1)).mean()
    (5 * kl + 2 * hard + cosine).backward()
    assert_close(ours, {n: p.grad.float() for n, p in student.named_parameters() if p.grad is not None}, 1e-5)


def test_the_head_runs_on_the_rows_asked_for_only(tmp_path):
    """Prevents the vocabulary projection over all tokens where the terms read masked ones."""
    student, teacher = tiny.mlm_model(2, seed=1), tiny.mlm_model(4)
    rows_seen = []
    run = trainer(tmp_path, student, teacher, [SoftTargetKL(1.0, 2.0, "masked"), HardLabel(1.0), HiddenCosine(1.0)])
    for model in (student, teacher):
        model.cls.register_forward_hook(lambda module, args, out: rows_seen.append(args[0].shape[:-1].numel()))
    batch = run.data_collator(text_rows())
    run.compute_loss(run.model, batch)
    assert rows_seen == [int((batch["labels"] != -100).sum())] * 2


@pytest.mark.parametrize("rows", ["all", "masked", 0.4])
def test_the_size_of_a_chunk_changes_no_gradient(tmp_path, monkeypatch, rows):
    """Prevents rows lost or counted twice where the vocabulary is cut; about three rows a chunk against all at once."""

    def gradient(size):
        monkeypatch.setattr(training, "_CHUNK_BYTES", {"cpu": size})
        keep = KeepGradients()
        student, terms = tiny.mlm_model(2, seed=1), [SoftTargetKL(5.0, 2.0, rows), HardLabel(2.0)]
        run = trainer(tmp_path, student, tiny.mlm_model(4), terms, callbacks=[keep], max_steps=1, max_grad_norm=0)
        run.train()
        return keep.gradients

    assert_close(gradient(3 * 4 * len(tiny.VOCABULARY)), gradient(2**20))


@pytest.mark.parametrize("kind", ["mlm", "classification"])
def test_a_micro_step_waits_for_nothing(tmp_path, kind):
    """Prevents a host that waits for the GPU at every micro-step, where the GPU then waits for the host."""
    student, teacher = (
        (tiny.mlm_model(2, seed=1), tiny.mlm_model(4)) if kind == "mlm" else (tiny.classifier(2), tiny.classifier(4))
    )
    terms = [SoftTargetKL(1.0), HardLabel(1.0), HiddenCosine(1.0), AttentionKL(1.0)]
    run = trainer(tmp_path, student, teacher, terms, kind=kind)
    run.model_wrapped = run.accelerator.prepare_model(run.model)
    batches, counts = run.get_batch_samples(iter(run.get_train_dataloader()), 2, run.args.device)
    assert all("attention_mask" in batch for batch in batches), "padding is what tempts models to look at the mask"
    with NoSync():
        for batch in batches:
            run.training_step(run.model_wrapped, batch, counts)


def test_a_term_of_weight_zero_costs_nothing(tmp_path, monkeypatch):
    """Prevents a switched-off term that is still computed, or still makes the teacher show its attention."""

    def fail(*args):
        raise AssertionError("computed")

    monkeypatch.setattr(attention_maps, "attention_kl", fail)
    run = trainer(
        tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), [HiddenCosine(1.0), AttentionKL(0.0), SoftTargetKL(0.0)]
    )
    run.train()
    request = run.objective.request("teacher")
    assert run.objective.names == ["hidden_cosine"]
    assert not request.attention
    assert not request.logits


def test_no_teacher_is_run_where_no_term_needs_it(tmp_path):
    """Prevents paying for a teacher in the run without distillation."""
    teacher = tiny.mlm_model(4)
    teacher.register_forward_pre_hook(lambda *args: pytest.fail("the teacher ran"))
    trainer(tmp_path, tiny.mlm_model(2), teacher, [HardLabel(1.0), SoftTargetKL(0.0)]).train()


def test_the_teacher_is_never_touched(tmp_path):
    """Prevents a teacher in training mode, with gradients, in the optimiser or in the checkpoint."""
    teacher = tiny.mlm_model(4, hidden_dropout_prob=0.5)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    modes = []
    teacher.register_forward_pre_hook(lambda module, args: modes.append((module.training, torch.is_grad_enabled())))
    run = trainer(tmp_path, tiny.mlm_model(2), teacher.train(), save_strategy="steps", save_steps=3)
    run.train()
    assert set(modes) == {(False, False)}
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    trained = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert not trained & {id(parameter) for parameter in teacher.parameters()}
    student_names = set(run.model.state_dict())
    assert not [name for name in student_names if "teacher" in name]


def test_segments_reach_the_teacher_though_the_student_has_none(tmp_path):
    """Prevents `token_type_ids` from vanishing: a BERT teacher would read every pair as one segment."""
    teacher = tiny.classifier(4)
    student, _ = build_student(teacher, [1, 3], architecture="distilbert")
    seen = {}
    teacher.register_forward_pre_hook(lambda m, args, kwargs: seen.update(teacher=set(kwargs)), with_kwargs=True)
    student.register_forward_pre_hook(lambda m, args, kwargs: seen.update(student=set(kwargs)), with_kwargs=True)
    trainer(tmp_path, student, teacher, kind="classification", max_steps=1).train()
    assert "token_type_ids" in seen["teacher"]
    assert "token_type_ids" not in seen["student"]


def test_terms_are_logged_by_name_in_training_and_evaluation(tmp_path):
    """Prevents a loss of which nobody knows the parts, or parts that do not add up to it."""
    run = trainer(tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), eval_rows=text_rows(5, seed=3))
    run.train()
    metrics = run.evaluate()
    weights = dict(zip(run.objective.names, run.objective.weights(0), strict=True))
    for entry, prefix in ((run.state.log_history[0], ""), (metrics, "eval_")):
        total = sum(weight * entry[prefix + name] for name, weight in weights.items())
        assert entry[f"{prefix}loss"] == pytest.approx(total, rel=1e-5)
    assert metrics["eval_perplexity"] == pytest.approx(math.exp(metrics["eval_hard_label"]))


def test_each_evaluation_set_is_read_by_itself(tmp_path):
    """Prevents a loader that is kept for one set, with its workers, and serves the next."""
    sets = {"a": text_rows(8, seed=3), "b": text_rows(5, seed=4)}
    kept = {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}
    run = trainer(tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), eval_rows=sets, **kept)
    together = run.evaluate()
    for name, rows in sets.items():
        assert together[f"eval_{name}_loss"] == pytest.approx(run.evaluate(rows)["eval_loss"], rel=1e-6)
    assert together["eval_a_loss"] != pytest.approx(together["eval_b_loss"], rel=1e-3)


@pytest.mark.integration
def test_evaluation_is_exact_whatever_the_batch_size(tmp_path):
    """Prevents means of batch means: ragged batches of 2 and of 5 give the loss per token of all rows at once."""
    rows, found = text_rows(11, seed=3), []
    for size in (2, 5, 11):
        run = trainer(
            tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), eval_rows=rows, per_device_eval_batch_size=size
        )
        found.append(run.evaluate())
    for name in ("eval_loss", "eval_hard_label", "eval_attention_kl", "eval_accuracy"):
        assert found[0][name] == pytest.approx(found[2][name], rel=1e-4)
        assert found[1][name] == pytest.approx(found[2][name], rel=1e-4)


@pytest.mark.integration
def test_unlabelled_rows_teach_by_soft_targets_only(tmp_path):
    """Prevents −100 from being taken for a class, or unlabelled rows from being lost to the teacher."""
    rows = task_rows(8)
    for row in rows[:5]:
        row["labels"] = -100
    run = trainer(tmp_path, tiny.classifier(2), tiny.classifier(4), kind="classification", rows=rows)
    counts = dict(zip(run.objective.names, run.objective.counts(run.data_collator(rows)["rows"]), strict=True))
    assert counts["soft_target_kl"] == 8
    assert counts["hard_label"] == 3
    run.train()
    assert all(math.isfinite(value) for value in curve(run))


@pytest.mark.integration
def test_regression_learns_by_squared_errors(tmp_path):
    """Prevents a cross-entropy on numbers; rows labelled NaN have soft targets only."""
    rows = [{**row, "labels": float(i)} for i, row in enumerate(task_rows(8))]
    rows[0]["labels"] = math.nan
    teacher = tiny.classifier(4, num_labels=1)
    run = trainer(tmp_path, tiny.classifier(2, num_labels=1), teacher, [SoftTargetKL(1.0), HardLabel(1.0)],
                  kind="regression", rows=rows)  # fmt: skip
    batch = run.data_collator(rows)
    _, sums, student = run.teacher_student.compute(run.model, batch, 0.0, torch.ones(2))
    with torch.no_grad():
        theirs = teacher(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}).logits
    assert sums[0].item() == pytest.approx((student.logits - theirs).square().sum().item(), rel=1e-4)
    wrong = (student.logits[1:, 0] - batch["labels"][1:]).square().sum()
    assert sums[1].item() == pytest.approx(wrong.item(), rel=1e-5)


def test_weights_and_temperature_follow_their_schedules(tmp_path):
    """Prevents a schedule that is read from the recipe and never applied."""
    term = SoftTargetKL(Schedule(2.0, 0.0, "linear"), Schedule(4.0, 1.0, "cosine"))
    run = trainer(tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), [term], max_steps=5, learning_rate=0.0)
    temperatures = []
    run.add_callback(Peek(lambda: temperatures.append(term.temperature(run._progress))))
    run.train()
    assert temperatures == pytest.approx([4.0, 4 - 3 * (1 - math.cos(math.pi / 4)) / 2, 2.5,
                                          4 - 3 * (1 - math.cos(3 * math.pi / 4)) / 2, 1.0])  # fmt: skip
    losses_seen, kls = curve(run), curve(run, "soft_target_kl")
    expected = [weight * kl for weight, kl in zip((2.0, 1.5, 1.0, 0.5, 0.0), kls, strict=True)]
    assert losses_seen == pytest.approx(expected, rel=1e-5)
    assert curve(run, "soft_target_kl_weight") == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0])


class Peek(TrainerCallback):
    def __init__(self, look):
        self.look = look

    def on_step_begin(self, args, state, control, **kwargs):
        self.look()


def test_a_narrower_student_learns_a_projection_that_leaves_again(tmp_path):
    """Prevents projections that are not trained, not in the checkpoint, or still in the exported student."""
    student = tiny.mlm_model(2, seed=1, hidden_size=16, intermediate_size=32)
    plain = set(student.state_dict())
    run = trainer(tmp_path, student, tiny.mlm_model(4), [HiddenMSE(1.0), HiddenCosine(1.0, "last")],
                  save_strategy="steps", save_steps=3)  # fmt: skip
    bank = getattr(student, PROJECTIONS)
    before = {name: value.clone() for name, value in bank.state_dict().items()}
    run.train()
    assert sorted(bank) == ["hidden_cosine_1", "hidden_mse_0", "hidden_mse_1"]
    assert all(not torch.equal(value, before[name]) for name, value in bank.state_dict().items())
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "checkpoint-3" / "model.safetensors")
    assert any(name.startswith(PROJECTIONS) for name in saved)
    assert set(run.detach().state_dict()) == plain


@pytest.mark.parametrize("kind", ["mlm", "multilabel"])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, kind):
    """Prevents a resume with another data order, masks, dropout, schedule or projection."""

    def new(folder, **arguments):
        fields = {"seed": 1, "hidden_size": 16, "intermediate_size": 32, "hidden_dropout_prob": 0.1}
        student, teacher = tiny.mlm_model(2, **fields), tiny.mlm_model(4)
        rows, drawn = None, 0.5
        if kind == "multilabel":
            student, teacher, drawn = tiny.classifier(2, 3, **fields), tiny.classifier(4, 3), "all"
            rows = [row | {"labels": label_set(i)} for i, row in enumerate(task_rows())]
        terms = [SoftTargetKL(Schedule(5.0, 1.0, "linear"), 2.0, drawn), HardLabel(2.0), HiddenMSE(1.0)]
        often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 7, "gradient_accumulation_steps": 2}
        often |= {"per_device_train_batch_size": 3, **arguments}
        return trainer(folder, student, teacher, terms, kind=kind, rows=rows, **often)

    whole = new(tmp_path / "whole")
    whole.train()
    stopped = new(tmp_path / "stopped", callbacks=[StopAt(4)])
    stopped.train()
    resumed = new(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-4"))
    assert resumed.state.global_step == 7
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert curve(whole) == curve(resumed)


def test_activation_checkpointing_changes_no_gradient(tmp_path):
    """Prevents signals captured twice, or lost, when layers are recomputed in the backward."""
    assert_close(first_gradient(tmp_path, 8, 1), first_gradient(tmp_path, 8, 1, **{CHECKPOINTING: True}))


@pytest.mark.integration
def test_compiled_blocks_learn_the_same_and_no_step_compiles_anew(tmp_path):
    """Prevents graphs by the step (a shape, a layer's number or a counter that is compiled in), and hooks lost."""

    class Count(TrainerCallback):
        def __init__(self):
            self.graphs = []

        def on_step_end(self, *args, **kwargs):
            self.graphs.append(compiled_graphs())

    def run(folder, **arguments):
        rows = [{"input_ids": [2, *range(10, 38), 3]} for _ in range(64)]
        terms = [SoftTargetKL(1.0, 2.0, "all"), HardLabel(1.0), HiddenCosine(1.0), AttentionKL(1.0, [(3, 1)])]
        student, count = tiny.mlm_model(4, seed=1), Count()
        found = trainer(
            folder, student, tiny.mlm_model(8), terms, rows=rows, max_steps=6, callbacks=[count], **arguments
        )
        found.train()
        return found, count.graphs

    plain, _ = run(tmp_path / "plain")
    torch._dynamo.reset()  # no graph of another test's blocks is taken again
    before = compiled_graphs()
    compiled, graphs = run(tmp_path / "compiled", torch_compile=True, torch_compile_backend="aot_eager")
    assert curve(compiled) == pytest.approx(curve(plain), rel=1e-5)
    assert 2 <= graphs[0] - before <= 16, "one for the blocks of each model, a few more where attention is shown"
    assert graphs == [graphs[0]] * 6
    teacher = compiled.teacher
    student = compiled.detach()
    assert not [m for model in (student, teacher) for m in model.modules() if "forward" in m.__dict__]
    assert not [name for name in student.state_dict() if "_orig_mod" in name]


def test_bf16_stays_near_fp32(tmp_path):
    """Prevents terms computed in bf16 where they need fp32."""
    found = []
    for bf16 in (False, True):
        run = trainer(tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), bf16=bf16)
        run.train()
        found.append(curve(run))
    assert found[0] == pytest.approx(found[1], rel=0.02)
    assert found[0] != found[1]


@pytest.mark.parametrize("term", [ActivationBoundary(1.0), HiddenMSE(1.0)], ids=lambda term: term.name)
def test_projections_run_in_the_precision_of_the_model(tmp_path, term):
    """Prevents a projection in fp32 of states in bf16, which torch refuses, and whole peers that train in fp32."""
    student = tiny.mlm_model(2, seed=1, hidden_size=16, intermediate_size=24)
    run = trainer(tmp_path, student, tiny.mlm_model(4), [term], bf16=True)
    seen = []
    for module in student.distillation_projections.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    run.train()
    assert seen
    assert set(seen) == {torch.bfloat16}


def test_a_term_that_is_not_finite_stops_by_name_and_keeps_the_checkpoint(tmp_path):
    """Prevents days of training on NaN, and a last good checkpoint replaced by a broken one."""
    student = tiny.mlm_model(2, seed=1)
    run = trainer(tmp_path, student, tiny.mlm_model(4), save_strategy="steps", save_steps=1, max_steps=5,
                  logging_steps=100)  # fmt: skip
    run.add_callback(Break(student, at=2))
    with pytest.raises(UserError, match="soft_target_kl"):
        run.train()
    good = last_complete_checkpoint(tmp_path)
    assert good.name == "checkpoint-2"
    from safetensors.torch import load_file

    assert all(torch.isfinite(value).all() for value in load_file(good / "model.safetensors").values())


class Break(TrainerCallback):
    """Puts a NaN into the student after a step."""

    def __init__(self, model, at):
        self.model, self.at = model, at

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.at:
            with torch.no_grad():
                self.model.cls.predictions.bias[7] = math.nan


def test_a_half_written_checkpoint_is_passed_over(tmp_path):
    """Prevents resuming from a checkpoint whose writing was cut off."""
    run = trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), save_strategy="steps", save_steps=1)
    run.train()
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-3"
    weights = tmp_path / "checkpoint-3" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-2"
    (tmp_path / "checkpoint-2" / "complete.json").unlink()
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("label_smoothing_factor", 0.1), ("neftune_noise_alpha", 5.0), ("use_liger_kernel", True)],
)
def test_arguments_that_change_the_objective_are_refused(tmp_path, name, value):
    """Prevents `Trainer` from replacing the loss, or shaking the embeddings, unseen."""
    with pytest.raises(UserError, match=f"{name}.*{value}"):
        trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), **{name: value})


@pytest.mark.parametrize("mode", ["reduce-overhead", "max-autotune"])
def test_cuda_graphs_are_refused(tmp_path, mode):
    """Prevents terms that read what the next graph has overwritten."""
    with pytest.raises(UserError, match=f"got {mode} .*max-autotune-no-cudagraphs"):
        trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), torch_compile=True, torch_compile_mode=mode)


def test_several_gpus_without_a_launcher_are_refused(tmp_path, monkeypatch):
    """Prevents DataParallel, whose row counts are wrong."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 4))
    with pytest.raises(UserError, match=r"4 GPUs.*accelerate launch"):
        trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4))


def test_launched_processes_must_know_of_each_other(tmp_path, monkeypatch):
    """Prevents two processes that each train alone and overwrite each other, as torchrun on the CPU gives."""
    args = TrainingArguments(str(tmp_path), use_cpu=True)
    validate_arguments(args)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"expected 2 processes .*training\.use_cpu=true"):
        validate_arguments(args)


def test_it_works_from_a_notebook_with_stock_collators(tmp_path):
    """Prevents a trainer that only its own data feeds: columns nobody knows are dropped, terms still exact."""
    tokenizer = tiny.tokenizer()
    rows = [{**tokenizer(text), "text": text, "id": i} for i, text in enumerate(tiny.SENTENCES * 4)]
    run = DistillationTrainer(
        model=tiny.mlm_model(2),
        teacher=tiny.mlm_model(4),
        objective=Objective(all_terms("masked"), "mlm"),
        args=TrainingArguments(str(tmp_path), max_steps=2, report_to="none", use_cpu=True, save_strategy="no"),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.3, seed=1),
    )
    run.train()
    assert isinstance(run, Trainer)
    assert all(math.isfinite(value) for value in run.last_terms.values())
    assert run.last_terms.keys() == set(run.objective.names)


def test_a_micro_batch_without_masked_tokens_is_no_nan(tmp_path):
    """Prevents 0 ÷ 0 where a batch happens to hold no row of a term."""
    rows = [{"input_ids": [2, 3]}, {"input_ids": [2, 3]}, *text_rows(6)]
    run = trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), rows=rows, per_device_train_batch_size=1,
                  train_sampling_strategy="sequential", max_steps=8)  # fmt: skip
    run.train()
    assert all(math.isfinite(value) for value in curve(run))


def test_the_best_checkpoint_is_loaded_at_the_end(tmp_path):
    """Prevents a choice by a mean of means, or no choice at all: the kept weights have the lowest exact loss."""
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 6}
    run = trainer(
        tmp_path,
        tiny.mlm_model(2, seed=1),
        tiny.mlm_model(4),
        eval_rows=text_rows(9, seed=5),
        load_best_model_at_end=True,
        learning_rate=0.05,
        **often,
    )
    run.train()
    seen = {entry["step"]: entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry}
    best = min(seen, key=seen.get)
    assert run.state.best_model_checkpoint.endswith(f"checkpoint-{best}")
    assert run.evaluate()["eval_loss"] == pytest.approx(seen[best], rel=1e-5)


def test_the_progress_bar_shows_the_terms(tmp_path, capfd):
    """Prevents a bar that says nothing but the step."""
    run = trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), disable_tqdm=False)
    run.train()
    shown = capfd.readouterr().err
    assert all(f"{name} " in shown for name in run.objective.names)
    assert re.search(r"[\d,]+ tokens/s", shown)


@contextmanager
def terminal(monkeypatch):
    """Give stderr to a terminal of 80 columns; yields a function that reads what was written to it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    with monkeypatch.context() as patch, os.fdopen(theirs, "w", encoding="utf-8") as stderr:
        patch.setattr("sys.stderr", stderr)
        patch.setenv("COLUMNS", "80")
        yield lambda: b"".join(iter(lambda: _read_ready(ours), b"")).decode()
    os.close(ours)


def _read_ready(file):
    """Return what can be read without waiting; the terminal passes on a line at a time."""
    return os.read(file, 100_000) if select.select([file], [], [], 0.2)[0] else b""


@pytest.mark.parametrize("terms", [1, 4, 40])
def test_the_bar_keeps_its_length_on_a_terminal(monkeypatch, terms):
    """Prevents terms that leave a bar of one character, or run off the screen."""
    callback, state = TermProgressCallback(), TrainerState(max_steps=60, is_world_process_zero=True)
    names = [f"a_term_of_a_long_name_{i}" for i in range(terms)]
    with terminal(monkeypatch) as written:
        callback.on_train_begin(None, state, None)
        state.global_step = 28
        callback.on_step_end(None, state, None)
        callback.on_log(None, state, None, {"loss": 1.65, **dict.fromkeys(names, 1e-4), "tokens_per_second": 1234})
        bar, lines = str(callback.training_bar), [str(line) for line in callback.lines]
        callback.on_log(None, state, None, {"loss": 1.5, "tokens_per_second": 1234})
        fewer = [line for line in map(str, callback.lines) if line.strip()]
        callback.on_train_end(None, state, None)
        assert "loss 1.5" in written()
    assert max(map(len, [bar, *lines])) < 80
    assert bar.count("█") > 15
    words = "  ".join(lines)
    assert all(f"{name} 0.0001" in words for name in names)
    assert "1,234 tokens/s" in words
    assert fewer == ["loss 1.5  1,234 tokens/s"]


def test_the_speed_in_the_log_adds_up_to_all_tokens(tmp_path, monkeypatch):
    """Prevents a speed that counts padding, or tokens of earlier logs again."""
    clock = iter(range(1000))
    monkeypatch.setattr("distil_nlp.training.term_logging.time.monotonic", lambda: next(clock))
    run = trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), num_train_epochs=1, max_steps=-1)
    run.train()
    per_log = [entry["tokens_per_second"] for entry in run.state.log_history if "loss" in entry]
    assert sum(per_log) == sum(len(row["input_ids"]) for row in text_rows())  # a log each second of this clock


def test_a_checkpoint_says_which_files_it_has(tmp_path):
    """Prevents a completion marker that is written before the files it vouches for."""
    trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), save_strategy="steps", save_steps=3).train()
    listed = json.loads((tmp_path / "checkpoint-3" / "complete.json").read_text())
    assert {"model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth"} <= listed.keys()


def test_a_head_that_no_term_asks_for_does_not_run(tmp_path):
    """Prevents the teacher's vocabulary projection where the student alone needs logits."""
    teacher, rows_seen = tiny.mlm_model(4), []
    teacher.cls.register_forward_hook(lambda module, args, out: rows_seen.append(args[0].shape[:-1].numel()))
    run = trainer(tmp_path, tiny.mlm_model(2), teacher, [HardLabel(1.0), HiddenCosine(1.0)])
    run.compute_loss(run.model, run.data_collator(text_rows()))
    assert rows_seen == [0]


def test_reentrant_checkpointing_is_refused_with_attention(tmp_path):
    """Prevents attention terms that silently have no gradient."""
    with pytest.raises(UserError, match="use_reentrant=false / got true"):
        trainer(
            tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), [AttentionKL(1.0), HardLabel(1.0)],
            gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": True},
        )  # fmt: skip


def test_a_training_of_no_steps_is_an_error(tmp_path):
    """Prevents an initialised student from being reported as a distillation."""
    with pytest.raises(UserError, match="a number above 0 / got 0 / nothing would be learnt"):
        trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), max_steps=-1, num_train_epochs=0).train()


def test_layers_that_see_other_tokens_are_not_paired():
    """Prevents an infinite KL between attention to all tokens and attention within a window (ModernBERT)."""
    whole, window = ModelShape(2, 32, 4, ("full", "full")), ModelShape(2, 32, 4, ("full", "window"))
    with pytest.raises(UserError, match=r"got \[1, 1\], full and window"):
        Objective([AttentionKL(1.0)], "mlm").bind(whole, window)
    Objective([AttentionKL(1.0, [[0, 0]])], "mlm").bind(whole, window)


def test_evaluations_under_a_schedule_compare(tmp_path):
    """Prevents a best checkpoint that is best because its weights had fallen."""
    run = trainer(tmp_path, tiny.mlm_model(2, seed=1), tiny.mlm_model(4), [SoftTargetKL(Schedule(1.0, 0.1, "linear"))],
                  eval_rows=text_rows(5, seed=3), eval_strategy="steps", eval_steps=1, learning_rate=0.0)  # fmt: skip
    run.train()
    seen = [entry["eval_loss"] for entry in run.state.log_history if "eval_loss" in entry]
    assert seen == pytest.approx([seen[0]] * 3, rel=1e-6)


def test_a_model_that_was_evaluated_before_is_trained_alike(tmp_path):
    """Prevents a model that accelerate takes for prepared: in two processes it would not exchange gradients."""
    student = tiny.mlm_model(2, seed=1)
    student._is_accelerate_prepared = True  # so accelerate 1.15 marks a model that it prepared for evaluation
    trainer(tmp_path, student, tiny.mlm_model(4))
    assert not hasattr(student, "_is_accelerate_prepared")


def test_a_stream_trains_and_resumes_in_its_second_pass(tmp_path):
    """Prevents a ragged step at the end of a pass, and a resume that begins the stream anew."""
    import datasets

    def new(folder, **arguments):
        rows = text_rows(22)
        stream = datasets.IterableDataset.from_generator(lambda: iter(rows)).shuffle(seed=1, buffer_size=30)
        often = {"save_strategy": "steps", "save_steps": 3, "max_steps": 5, "gradient_accumulation_steps": 4}
        model = tiny.mlm_model(2, seed=1, hidden_dropout_prob=0.1)
        arguments |= {**often, "per_device_train_batch_size": 2}
        return trainer(folder, model, tiny.mlm_model(4), rows=stream, **arguments)

    whole = new(tmp_path / "whole")
    whole.train()
    new(tmp_path / "stopped", callbacks=[StopAt(3)]).train()
    resumed = new(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-3"))
    assert curve(resumed) == curve(whole)
    assert max(curve(whole, "grad_norm")) < 2 * min(curve(whole, "grad_norm"))


def test_a_term_is_logged_over_the_steps_that_had_it(tmp_path):
    """Prevents a mean that falls because few rows have labels: one row's label, alone and in one step of three."""
    labelled, *others = task_rows(6)
    found = []
    for rows, batch in (([labelled], 1), ([labelled, *(row | {"labels": -100} for row in others)], 2)):
        steps = len(rows) // batch
        run = trainer(
            tmp_path, tiny.classifier(2, seed=1), tiny.classifier(4), [SoftTargetKL(), HardLabel()], rows=rows,
            kind="classification", per_device_train_batch_size=batch, max_steps=steps, logging_steps=steps,
            learning_rate=0.0, train_sampling_strategy="sequential",
        )  # fmt: skip
        run.train()
        found.append(run.last_terms["hard_label"])
    assert found[1] == pytest.approx(found[0], rel=1e-4)
