"""`replaced_tokens` in training: the student reads the teacher's words, and all else is as it was."""

import copy
import json
import math

import pytest
import torch
from transformers import AutoModelForMaskedLM, default_data_collator

from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.r_drop import RDrop
from distil_nlp.losses.replaced_tokens import ReplacedTokens
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.teachers.ensemble import Ensemble
from distil_nlp.teachers.mixing import Mixing
from distil_nlp.training import trainer as trainer_module
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.training import StopAt, curve, text_rows, trainer

NAME = "replaced_tokens"
WEIGHT = 7.0
FIRST = 20


def others(rows="all"):
    """A term of each kind of signal."""
    return [SoftTargetKL(5.0, 2.0, rows), HardLabel(2.0), HiddenCosine(1.0, "last"), AttentionKL(3.0, "last")]


def models(**changes):
    """(student, teacher); the teacher puts one of the words of `rows` mostly, so that some draws are the original."""
    student = tiny.mlm_model(2, seed=1, initializer_range=0.2, **changes)
    teacher = tiny.mlm_model(4, initializer_range=0.2)
    teacher.cls.predictions.decoder.bias.data[FIRST : FIRST + 4] = 5.0
    return student, teacher


def rows(count=8, seed=0):
    """Ragged rows of four words."""
    return [
        {"input_ids": [2, *(FIRST + one % 4 for one in row["input_ids"][1:-1]), 3]} for row in text_rows(count, seed)
    ]


def step(folder, terms, batch=8, accumulation=1, **further):
    """The gradient of one step, the trainer, and its batches."""
    steps = Steps()
    arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 1}
    arguments |= {"learning_rate": 0.0, "max_grad_norm": 0, "rows": rows(), **further}
    run = trainer(folder, *models(), terms, callbacks=[steps], **arguments)
    steps.watch(run)
    run.train()
    return steps.gradients[0], run, steps.batches[0]


def drawn_word(logits, u):
    """The first word at which the cumulative share exceeds u, number by number."""
    shares, total = logits.softmax(-1).tolist(), 0.0
    for word, share in enumerate(shares):
        total += share
        if total > u:
            return word
    return len(shares) - 1


def expected(run, batches):
    """(gradient of WEIGHT · mean, mean, number of replaced tokens): float64, eager, rows one by one and unpadded."""
    student, teacher = (copy.deepcopy(model).double().eval() for model in models())
    head = copy.deepcopy(run.objective.projections()[NAME]).double()
    for parameter in (*student.parameters(), *head.parameters()):
        parameter.requires_grad_(True).grad = None
    total, count, replaced = torch.zeros((), dtype=torch.float64), 0, 0
    for batch in batches:
        uniforms = iter(batch["uniforms"].tolist())
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        for ids, labels, present in zip(batch["input_ids"], batch["labels"], mask, strict=True):
            ids, labels = ids[present.bool()], labels[present.bool()]
            text, original = ids.clone(), torch.where(labels == -100, ids, labels)
            with torch.no_grad():
                logits = teacher(ids[None]).logits[0]
            for place in (labels != -100).nonzero().flatten().tolist():
                text[place] = drawn_word(logits[place], next(uniforms))
            told = head(student.base_model(text[None]).last_hidden_state[0])[:, 0]
            for z, new, old in zip(told, text.tolist(), original.tolist(), strict=True):
                if old < len(tiny.SPECIALS):
                    continue
                share = 1 / (1 + torch.exp(-z))
                total = total - (share.log() if new != old else (1 - share).log())
                count, replaced = count + 1, replaced + (new != old)
        assert next(uniforms, None) is None
    (WEIGHT * total / count).backward()
    gradient = {name: one.grad for name, one in student.named_parameters() if one.grad is not None}
    gradient |= {f"distillation_projections.{NAME}.{name}": one.grad for name, one in head.named_parameters()}
    return gradient, total.item() / count, replaced


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (4, 2), (2, 4)])
def test_the_gradient_is_that_of_the_definition_beside_all_other_terms(tmp_path, monkeypatch, batch, accumulation):
    """Prevents other terms that read the wrong copy, padding or special tokens that count, a mean of means.

    Chunks of five rows cut the masked tokens apart.
    """
    monkeypatch.setattr(trainer_module, "_CHUNK_BYTES", {"cpu": 5 * 4 * len(tiny.VOCABULARY)})
    found, run, batches = step(tmp_path, [*others(), ReplacedTokens(WEIGHT)], batch, accumulation)
    without, plain, _ = step(tmp_path, others(), batch, accumulation)
    wanted, mean, replaced = expected(run, batches)
    masked = sum(len(one["uniforms"]) for one in batches)
    assert 0 < replaced < masked  # some draws are the original word
    assert run.last_terms[NAME] == pytest.approx(mean, rel=1e-5)
    for name, value in plain.last_terms.items():
        assert run.last_terms[name] == pytest.approx(value, rel=1e-6), name
    for name, one in without.items():
        wanted[name] = wanted.get(name, 0) + one.double()
    assert distance(found, wanted) < 1e-5


def test_it_can_be_the_only_term(tmp_path):
    """Prevents a loss on the vocabulary that has no terms."""
    found, run, batches = step(tmp_path, [ReplacedTokens(WEIGHT)], eval_rows=rows(5, seed=3))
    wanted, mean, _ = expected(run, batches)
    assert run.last_terms[NAME] == pytest.approx(mean, rel=1e-5)
    assert distance(found, wanted) < 1e-5
    assert math.isfinite(run.evaluate()[f"eval_{NAME}"])


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    """Prevents other words after a resume, and a head that starts anew."""

    def new(folder, **arguments):
        often = {"save_strategy": "steps", "save_steps": 2, "max_steps": 5, "gradient_accumulation_steps": 2}
        often |= {"per_device_train_batch_size": 4, "rows": rows(24), **arguments}
        return trainer(folder, *models(hidden_dropout_prob=0.1), [*others(), ReplacedTokens(WEIGHT)], **often)

    whole = new(tmp_path / "whole")
    whole.train()
    new(tmp_path / "stopped", callbacks=[StopAt(2)]).train()
    resumed = new(tmp_path / "stopped")
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-2"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert any(NAME in name for name in whole.model.state_dict())
    assert curve(whole, NAME) == curve(resumed, NAME)


def test_draws_depend_on_the_row_and_the_epoch_alone(tmp_path):
    """Prevents words that change with the batch, its padding or the process that a row is in."""
    run = trainer(tmp_path, *models(), [ReplacedTokens()])
    texts = text_rows(6)

    def drawn(chosen, epoch=0):
        batch = run.data_collator([row | {"epoch": epoch} for row in chosen])
        return batch["uniforms"].tolist()

    apart = [drawn([row]) for row in texts]
    assert drawn(texts) == [u for one in apart for u in one]
    assert drawn(texts[::-1]) == [u for one in apart[::-1] for u in one]
    assert not set(drawn(texts)) & set(drawn(texts, epoch=1))
    filled = run.data_collator([*texts[:3], texts[3] | {"filler": True}])
    assert filled["uniforms"].tolist() == [u for one in apart[:3] for u in one]


def test_the_student_learns_to_tell_and_leaves_without_its_head(tmp_path):
    """Prevents a head or an encoder that gets no gradient, and a folder that plain transformers cannot load."""
    arguments = {"max_steps": 40, "learning_rate": 3e-3, "rows": rows(), "bf16": True}
    student, teacher = models()
    teacher.cls.predictions.decoder.bias.data[7] = 20.0  # which always puts the same word, that no text has
    objective = [HardLabel(0.1), ReplacedTokens(5.0)]
    run = trainer(tmp_path, student, teacher, objective, eval_rows=rows(seed=3), **arguments)
    run.train()
    told = curve(run, NAME)
    assert sum(told[-5:]) / 5 < 0.5 * sum(told[:5]) / 5
    logged = run.evaluate()
    assert logged[f"eval_{NAME}"] == run.evaluate()[f"eval_{NAME}"] < told[0]
    run.detach().save_pretrained(tmp_path / "student")
    plain, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert not hasattr(run.model, "distillation_projections")
    assert "replaced" not in json.dumps(plain.config.to_dict())


def test_checkpointed_activations_and_wider_terms_give_the_same_gradient(tmp_path):
    """Prevents a recomputed forward that reads the text of one copy only."""
    terms = [*others("masked"), ReplacedTokens(WEIGHT)]
    plain, _, _ = step(tmp_path, terms)
    checkpointed, _, _ = step(tmp_path, terms, activation_checkpointing=True)
    assert distance(checkpointed, {name: one.double() for name, one in plain.items()}) < 1e-6


@pytest.mark.parametrize("kind", ["classification", "regression", "tokens", "qa", "multilabel", "embedding", "ranking"])
def test_other_kinds_are_refused(kind):
    """Prevents words put into texts that have labels of their own."""
    with pytest.raises(UserError, match=rf"objective.{NAME}: expected mlm / got {kind} / the teacher puts words"):
        Objective([ReplacedTokens()], kind)


def test_what_it_does_not_go_with_is_refused_before_training(tmp_path):
    """Prevents draws from the likeliest words, a batch of four times the rows, and special tokens that are told too."""
    student, teacher = models(hidden_dropout_prob=0.1)
    with pytest.raises(UserError, match=rf"teacher.cache: expected .* / got {NAME}"):
        trainer(tmp_path, student, teacher, [ReplacedTokens()], cache=CacheConfig(folder=str(tmp_path / "cache")))
    with pytest.raises(UserError, match=rf"{NAME} without what makes more of a batch.* / got r_drop"):
        Objective([ReplacedTokens(), RDrop()], "mlm")
    assert not Objective([ReplacedTokens(0.0), RDrop()], "mlm").samples_text
    mixed = Ensemble([teacher, tiny.mlm_model(2, 5)], Mixing((1.0, 1.0), "probabilities", "fixed"))
    with pytest.raises(UserError, match=rf"teacher.mix: expected .*{NAME}"):
        trainer(tmp_path, student, mixed, [ReplacedTokens()])
    with pytest.raises(UserError, match="data_collator: expected a collator with a tokenizer"):
        DistillationTrainer(
            model=student,
            teacher=teacher,
            objective=Objective([ReplacedTokens()], "mlm"),
            args=trainer(tmp_path, *models()).args,
            train_dataset=text_rows(8),
            data_collator=default_data_collator,
        )


def three_steps(folder, batch):
    """The trainer after three steps with so many rows in each process."""
    objective, arguments = [*others(), ReplacedTokens(WEIGHT)], {"per_device_train_batch_size": batch, "optim": "sgd"}
    run = trainer(folder, *models(), objective, rows=rows(21), learning_rate=0.3, **arguments)
    run.train()
    return run


@pytest.mark.integration
def test_two_processes_take_the_steps_of_one(tmp_path):
    """Prevents words, counts or gradients that depend on how rows are divided."""
    forked_pair("-m", "tests.workers.sampled_text", str(tmp_path / "two"))
    found = json.loads((tmp_path / "two" / "found.json").read_text())
    whole = three_steps(tmp_path / "one", 6)
    assert (found["world_size"], found["wrapper"]) == (2, "DistributedDataParallel")
    assert found["curve"] == pytest.approx(curve(whole, NAME), rel=2e-4)
    for name, weight in whole.model.named_parameters():
        assert found["sums"][name] == pytest.approx(float(weight.detach().double().abs().sum()), rel=1e-4, abs=1e-4)
