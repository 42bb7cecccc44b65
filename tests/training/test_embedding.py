"""Steps on the vectors of texts: their gradient by the definitions, however a step is cut, with caches and resumes."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainingArguments

from distil_nlp.data.embedding import EmbeddingCollator
from distil_nlp.errors import UserError
from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.embeddings import EmbeddingCosine, EmbeddingMSE, EmbeddingSimilarityKL
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.similarity import PKT
from distil_nlp.objective.objective import Objective
from distil_nlp.teachers.cache import CacheConfig
from distil_nlp.training.checkpoints import last_complete_checkpoint
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.gradients import Steps, distance
from tests.helpers.processes import forked_pair
from tests.helpers.sentences import sentence_encoder
from tests.helpers.training import StopAt, curve, text_rows, trainer

POOLINGS = ("mean", "cls", "max")


def models(pooling: str = "mean", normalize: bool = True) -> tuple[Any, Any]:
    """Return (student, teacher); the student is narrower, and has a Dense layer."""
    settings = {"pooling": pooling, "normalize": normalize, "dimension": 32}
    narrow = {"hidden_size": 16, "intermediate_size": 32}
    return sentence_encoder(2, 1, settings=settings, **narrow), sentence_encoder(4, settings=settings)


def row_terms() -> list[Any]:
    return [EmbeddingCosine(2.0), EmbeddingMSE(30.0)]


def steps_of(folder, batch: int, accumulation: int = 1, **options: Any) -> Steps:
    """Return the gradients and batches of three steps at learning rate 0."""
    steps = Steps()
    arguments = {"gradient_accumulation_steps": accumulation, "learning_rate": 0.0, "max_grad_norm": 0}
    made = trainer(
        folder,
        *models(**options),
        row_terms(),
        kind="embedding",
        callbacks=[steps],
        per_device_train_batch_size=batch,
        **arguments,
    )
    steps.watch(made)
    made.train()
    return steps


def vectors(model: Any, batches: Any) -> Tensor:
    """Return the vectors of all texts, one text at a time, without padding, from the plain encoder in float64."""
    settings, found = model.settings, []
    for batch in batches:
        for ids in batch["input_ids"]:
            states = model.bert(input_ids=ids[ids != 0][None]).last_hidden_state[0]
            by_pooling = {"mean": states.mean(0), "cls": states[0], "max": states.max(0).values}
            vector = by_pooling[settings.pooling]
            if model.dense is not None:
                vector = model.dense.weight @ vector + model.dense.bias
            found.append(vector / vector.square().sum().sqrt() if settings.normalize else vector)
    return torch.stack(found)


def expected(batches: Any, **options: Any) -> dict[str, Tensor]:
    """Return the gradient of the definitions."""
    student, teacher = (copy.deepcopy(model).double().eval() for model in models(**options))
    ours, theirs = vectors(student, batches), vectors(teacher, batches).detach()
    cosines = (ours * theirs).sum(1) / ours.norm(dim=1) / theirs.norm(dim=1)
    loss = 2 * (1 - cosines).mean() + 30 * (ours - theirs).square().mean(1).mean()
    loss.backward()
    return {name: p.grad for name, p in student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("batch", "accumulation"), [(8, 1), (3, 2), (1, 3)])
def test_a_step_has_the_gradient_of_the_definitions(tmp_path, batch, accumulation):
    """Prevents padding in a mean, and means of means: ragged texts, whole steps and accumulated ones."""
    steps = steps_of(tmp_path, batch, accumulation)
    assert len(steps.gradients) == 3
    for found, batches in zip(steps.gradients, steps.batches, strict=True):
        assert distance(found, expected(batches)) < 1e-5


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_each_pooling_has_the_gradient_of_its_definition(tmp_path, pooling, normalize):
    """Prevents a pooling that is read from a folder and not done, or reads padding."""
    options = {"pooling": pooling, "normalize": normalize}
    steps = steps_of(tmp_path, 8, **options)
    assert distance(steps.gradients[0], expected(steps.batches[0], **options)) < 1e-5
    other = {"pooling": "cls" if pooling == "mean" else "mean", "normalize": normalize}
    assert distance(steps.gradients[0], expected(steps.batches[0], **other)) > 1e-2


@pytest.mark.integration
def test_two_processes_take_the_step_of_one(tmp_path):
    """Prevents counts of one process alone, and a pooler without a gradient that DDP waits for."""
    forked_pair("-m", "tests.workers.embedding", str(tmp_path / "found"))
    ours, theirs = (torch.load(tmp_path / f"found.{rank}", weights_only=True) for rank in (0, 1))
    for number, found in enumerate(ours["gradients"]):
        assert distance(found, expected(ours["batches"][number] + theirs["batches"][number])) < 1e-5


def test_a_trainer_knows_sentence_encoders_and_refuses_plain_ones(tmp_path):
    """Prevents terms on a plain encoder, whose first output is the states of tokens."""
    student, teacher = models()
    arguments = {"args": TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), "train_dataset": text_rows()}
    collator = EmbeddingCollator(tiny.tokenizer())
    made = DistillationTrainer(
        model=student, teacher=teacher, objective=Objective(row_terms()), data_collator=collator, **arguments
    )
    assert made.objective.kind.name == "embedding"
    for plain in (student.bert, tiny.classifier(2)):
        with pytest.raises(UserError, match="sentence-embedding head / got Bert"):
            DistillationTrainer(
                model=plain,
                teacher=teacher,
                objective=Objective(row_terms(), "embedding"),
                data_collator=collator,
                **arguments,
            )


def all_terms() -> list[Any]:
    return [*row_terms(), EmbeddingSimilarityKL(), HiddenCosine(1.0), AttentionKL(1.0), PKT(1.0)]


def test_a_cached_teacher_teaches_the_same(tmp_path):
    """Prevents vectors of other texts, or in half precision where float32 was asked for."""
    plain, cached = (
        trainer(
            tmp_path / name,
            *models(),
            all_terms(),
            kind="embedding",
            cache=cache,
            max_steps=-1,
            num_train_epochs=2,
            learning_rate=1e-3,
        )
        for name, cache in (("plain", None), ("cached", CacheConfig(tmp_path / "caches", dtype="float32")))
    )
    for run in (plain, cached):
        run.train()
    assert curve(cached) == pytest.approx(curve(plain), rel=1e-5)


def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(tmp_path):
    """Prevents a Dense layer, or a part of the encoder, that a checkpoint does not bring back."""
    ends = []
    for name, stop in (("whole", None), ("stopped", 2)):
        trained = trainer(
            tmp_path / name, *models(), all_terms(), kind="embedding", max_steps=5, callbacks=[StopAt(stop)]
        )
        trained.train()
        if stop:
            trained = trainer(tmp_path / name, *models(), all_terms(), kind="embedding", max_steps=5)
            trained.train(resume_from_checkpoint=str(last_complete_checkpoint(tmp_path / name)))
        ends.append(trained.detach().state_dict())
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert any(name.startswith("dense.") for name in ends[0])
