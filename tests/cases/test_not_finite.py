"""Weights that are not finite while the loss is: no checkpoint, student or teacher of them is kept."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from distil_nlp.errors import UserError
from distil_nlp.losses.hidden_states import HiddenMSE
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.pipeline import preflight, publication
from distil_nlp.training.checkpoints import last_complete_checkpoint, mark_as_complete
from distil_nlp.training.finite import has_broken_state
from distil_nlp.training.fit import fit
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.runs import Place
from tests.helpers.training import trainer

pytestmark = pytest.mark.integration

WEIGHT = "bert.encoder.layer.0.output.dense.weight"


def spoiled(student, at, value=math.nan, weight=WEIGHT):
    """The gradient of a weight becomes `value` in the backward pass of a step."""
    passes = iter(range(1, 1000))
    parameter = student.get_parameter(weight)
    parameter.register_hook(lambda gradient: gradient * value if next(passes) == at else gradient)


def training(folder, at, value=math.nan, student=None, **arguments):
    student = student or tiny.mlm_model(2, seed=1)
    made = trainer(folder, student, tiny.mlm_model(4), [SoftTargetKL(5.0), HiddenMSE(1.0)], **arguments)
    spoiled(student, at, value)
    return made


SAVING = {
    "each step": {"save_strategy": "steps", "save_steps": 1},
    "keeping one": {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1},
    "in fp32 without clipping": {"save_strategy": "steps", "save_steps": 1, "max_grad_norm": 0.0},
    "in bf16": {"save_strategy": "steps", "save_steps": 1, "bf16": True},
}


@pytest.mark.parametrize("steps", [5, 3], ids=["in the middle", "at the last step"])
@pytest.mark.parametrize("saving", SAVING)
def test_a_gradient_that_overflows_leaves_the_last_good_checkpoint(tmp_path, saving, steps):
    """Prevents a checkpoint of NaN that is called complete, pushes the good one out, and is carried on from."""
    made = training(tmp_path, at=3, max_steps=steps, **SAVING[saving])
    with pytest.raises(UserError, match=r"finite weights / got NaN .* by step 3 / .*good checkpoint is checkpoint-2 /"):
        made.train()
    good = last_complete_checkpoint(tmp_path)
    assert good.name == "checkpoint-2"
    assert all(value.isfinite().all() for value in load_file(good / "model.safetensors").values())
    assert not (tmp_path / "checkpoint-3").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_student_is_kept_of_what_is_not_finite(tmp_path, value):
    """Prevents a student of NaN beside a record that says it is done, which a further start would only score."""
    made = training(tmp_path, at=2, value=value, max_steps=2, max_grad_norm=0.0, optim="sgd")
    with pytest.raises(UserError, match=r"NaN or infinity in bert\..* by step 2 / .* there is no good checkpoint"):
        fit(made, tmp_path / "student", tiny.tokenizer(), record_file=tmp_path / "training.json")
    assert not list(tmp_path.iterdir())


class Spoil(TrainerCallback):
    """Puts infinity into a tensor of the trainer after the first step."""

    def __init__(self, tensor):
        self.tensor = tensor

    def on_step_end(self, args, state, control, **kwargs):
        with torch.no_grad():
            self.tensor()[0] = math.inf


@pytest.mark.parametrize("part", ["a projection", "the optimizer's moments"])
def test_what_belongs_to_the_training_alone_is_looked_at_too(tmp_path, part):
    """Prevents a checkpoint whose student is whole, and whose next step breaks it or moves nothing."""
    student = tiny.mlm_model(2, seed=1, hidden_size=16)
    made = trainer(tmp_path, student, tiny.mlm_model(4), [SoftTargetKL(5.0), HiddenMSE(1.0)], max_steps=1)
    name = next(name for name, _ in made.model.named_parameters() if "projection" in name)
    projection = made.model.get_parameter(name)
    found = {
        "a projection": lambda: projection,
        "the optimizer's moments": lambda: made.optimizer.state[projection]["exp_avg_sq"],
    }
    made.add_callback(Spoil(found[part]))
    with pytest.raises(UserError, match=f"NaN or infinity in {name if part == 'a projection' else part} by step 1"):
        made.train()


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_optimizer_that_counts_its_steps_on_the_cpu_is_looked_at(device):
    """Prevents a training that ends in an error of torch's, where moments are on a GPU and the steps are not."""
    parameter = torch.nn.Parameter(torch.ones(2, device="meta"))
    optimizer = torch.optim.AdamW([parameter])
    optimizer.state[parameter] = {"step": torch.ones(()), "exp_avg": torch.ones(2, device=device)}
    accelerator = SimpleNamespace(
        device=torch.device(device), reduce=lambda flag, how: torch.zeros_like(flag, device="cpu")
    )
    assert not has_broken_state(optimizer, accelerator)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_checkpoint_of_an_earlier_version_is_passed_over_aloud(tmp_path, capsys, value):
    """Prevents a run that fails at each start, because its newest checkpoint is complete and not finite."""
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        broken = torch.full((2,), value if step == 4 else 1.0)
        save_file(
            {"weight": torch.ones(2), "bias": broken, "ids": torch.ones(2, dtype=torch.long)},
            folder / "model.safetensors",
        )
        mark_as_complete(folder)
    assert last_complete_checkpoint(tmp_path).name == "checkpoint-2"
    assert "checkpoint-4: NaN or infinity in bias; passed over" in capsys.readouterr().out


@pytest.mark.parametrize("who", ["the teacher", "the student", "another seed's student"])
def test_a_whole_run_keeps_no_broken_model(tmp_path, monkeypatch, capsys, who):
    """Prevents scores of a broken model, and a shared teacher of NaN that every later run takes."""
    monkeypatch.setattr(publication, "write_report", lambda folders: folders[0] / "report" / "report.html")
    monkeypatch.setattr(preflight, "rehearse", lambda *args, **kwargs: None)  # which has a trainer of its own
    place, count, create = Place(tmp_path).prepare(), iter(range(3)), DistillationTrainer.__init__
    number = ["the teacher", "the student", "another seed's student"].index(who)

    def create_spoiled(self, *args, **kwargs):
        create(self, *args, **kwargs)
        if next(count) == number:
            spoiled(self.model, at=1)

    monkeypatch.setattr(DistillationTrainer, "__init__", create_spoiled)
    assert place.run("teacher.finetune={max_steps: 1}", "training.max_steps=1", "evaluation.seeds=2") == 2
    said = capsys.readouterr().err
    assert "finite weights" in said
    assert "lower training.learning_rate" in said
    kept = [path.parent.name for path in tmp_path.glob("**/*.safetensors") if path.parent.name in ("model", "student")]
    assert sorted(kept) == ["model", "student"][:number]
    records = [json.loads(path.read_text()) for path in tmp_path.glob("run/**/training.json")]
    assert len(records) == max(number - 1, 0)
