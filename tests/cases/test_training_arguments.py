"""Training arguments: every field works to the end, or is refused in words by its key, before anything slow."""

import json
import os
import re
import signal
from typing import get_args, get_origin

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import MPNetConfig, MPNetForSequenceClassification, TrainingArguments
from transformers.training_args import OptimizerNames

from distil_nlp.cli import distill
from distil_nlp.cli.guard import run_guarded
from distil_nlp.data import MaskingCollator
from distil_nlp.errors import UserError
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.pipeline import preflight
from distil_nlp.pipeline.plan import RunPlan
from distil_nlp.recipe import load_recipe
from distil_nlp.recipe.sections import Recipe
from distil_nlp.recipe.training_arguments import _OTHER_NAMES, training_mistakes, training_types
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import tiny
from tests.helpers.runs import Place
from tests.helpers.training import task_rows, text_rows, trainer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("place")).prepare()
    model = MPNetForSequenceClassification(MPNetConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2,
                                                       num_attention_heads=4, intermediate_size=64))  # fmt: skip
    model.save_pretrained(made.folder / "mpnet")
    tiny.tokenizer().save_pretrained(made.folder / "mpnet")
    return made


def refusal(place, *overrides):
    """Return the message with which a recipe is refused before data and models are loaded; None if it is not."""
    try:
        preflight.validate_plan(RunPlan.of(load_recipe(*_command(place, overrides)), "tiny"))
    except UserError as error:
        return str(error)
    return None


def _command(place, overrides):
    path, *others = place.command(*overrides)
    return path, others


REFUSED = {
    "training.optim=adamw_bnb_8bit": "training.optim: .*bitsandbytes.*install the package",
    "training.optim=galore_adamw": "training.optim: ",
    "training.optim=lomo": "training.optim: ",
    "training.optim=schedule_free_adamw": "training.optim: .*schedulefree",
    "training.lr_scheduler_type=warmup_stable_decay": "lr_scheduler_type: .*num_decay_steps.*lr_scheduler_kwargs",
    "training.lr_scheduler_type=cosine_with_min_lr": "lr_scheduler_type: .*min_lr.*training.lr_scheduler_kwargs",
    "training.lr_scheduler_kwargs={power: 2}": "training.lr_scheduler_kwargs: .*unexpected keyword argument 'power'",
    "training.lr_scheduler_type=reduce_lr_on_plateau": "training.lr_scheduler_type: ",
    "training.eval_on_start=true": "training.eval_on_start: .*eval_dataset",
    "training.debug=underflow_overflow": "training.debug: ",
    "training.report_to=mlflow": "training.report_to: .*mlflow.*install the package",
    "training.fsdp=full_shard": "training.fsdp: .*accelerate launch",
    "training.length_column_name=tokens": "training.length_column_name: .*'tokens'",
    "training.torch_compile_backend=nothing": "training.torch_compile_backend: .*[Ii]nvalid",
    "training.load_best_model_at_end=true": "training.load_best_model_at_end: ",
    "training.max_steps=0": "training.max_steps: expected a number from 1 .* or -1 for those of num_train_epochs",
    "training.max_steps=-2": "training.max_steps: ",
    "training.num_train_epochs=0": "training.num_train_epochs: ",
    "training.save_total_limit=0": "training.save_total_limit: expected a number from 1",
    "training.save_steps=0": "training.save_steps: ",
    "training.save_steps=1.5": "training.save_steps: ",
    "training.logging_steps=0": "training.logging_steps: ",
    "teacher.finetune={optim: adamw_bnb_8bit}": "teacher.finetune.optim: .*bitsandbytes",
    "teacher.finetune={lr_scheduler_type: cosine_with_min_lr}": "finetune.lr_scheduler_type: .*set teacher.finetune",
    "teacher.finetune={label_smoothing_factor: 0.1}": "teacher.finetune.label_smoothing_factor: ",
    "teacher.finetune={max_steps: 0}": "teacher.finetune.max_steps: ",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_would_fail_within_training_is_refused_by_its_key(place, override):
    """Prevents tracebacks from within `Trainer.train`, after the teacher was fine-tuned and scored."""
    assert re.search(REFUSED[override], refusal(place, override) or "accepted")


def test_a_family_without_checkpointing_is_refused(place):
    """Prevents an error of transformers once the teacher is scored."""
    message = refusal(place, "training.gradient_checkpointing=true", f"teacher.name={place.folder / 'mpnet'}")
    assert message.startswith("training.gradient_checkpointing: ")
    assert "MPNet" in message
    assert refusal(place, "training.gradient_checkpointing=true") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 2}},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-5}, "max_steps": 3},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 3},
        {"max_steps": -1},
        {"save_steps": 0.5},
        {"optim": "adafactor"},
        {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 2},
    ],
    ids=str,
)
def test_what_trainer_takes_is_taken(place, fields):
    """Prevents a rehearsal that refuses good recipes."""
    assert refusal(place, *(f"training.{name}={json.dumps(value)}" for name, value in fields.items())) is None


@pytest.mark.parametrize("name", ["gradient_checkpointing", "activation_checkpointing"])
def test_reentrant_checkpointing_is_refused_where_terms_lose_their_gradient(place, name):
    """Prevents a refusal once the teacher is fine-tuned, and one where nothing is lost."""
    on = [f"training.{name}=true", f"training.{name}_kwargs={{use_reentrant: true}}"]
    without = "objective.attention_kl=null"
    assert refusal(place, *on).startswith(f"training.{name}_kwargs: expected use_reentrant=false")
    assert refusal(place, *on, without) is None
    assert refusal(place, *on[1:]) is None


def test_a_rehearsal_leaves_nothing(place):
    """Prevents a folder, a log or other random numbers by a rehearsal."""
    before = torch.get_rng_state()
    assert refusal(place) is None
    assert torch.equal(torch.get_rng_state(), before)
    assert not place.out.exists()


def test_the_command_ends_with_2_before_anything_slow(place, capsys):
    """Prevents a traceback and an exit code of 1."""
    assert distill(place.command("training.optim=adamw_bnb_8bit", "teacher.finetune={max_steps: 1}")) == 2
    error = capsys.readouterr().err
    assert "training.optim" in error
    assert "Traceback" not in error
    assert not (place.folder / "teachers").exists()


@pytest.mark.parametrize(("name", "meant"), _OTHER_NAMES.items())
def test_names_of_elsewhere_lead_to_a_key_that_exists(name, meant):
    """Prevents hints to nothing, and to a field that happens to be spelt alike."""
    assert training_mistakes("training", {name: 1}) == [f"training.{name}: unknown key; did you mean {meant}?"]
    key = meant.partition("=")[0]
    section, _, rest = key.partition(".")
    assert key in training_types() or rest.partition(".")[0] in _keys(Recipe.model_fields[section].annotation)


def _keys(section):
    return set(section.model_fields) if hasattr(section, "model_fields") else {"soft_target_kl"}


# The trainer itself ---------------------------------------------------------------------------------------------


def parts(kind="mlm", **changes):
    rows = text_rows(8)
    return {
        "model": tiny.mlm_model(2),
        "teacher": tiny.mlm_model(4),
        "objective": Objective([SoftTargetKL(1.0), HiddenCosine(1.0)], kind),
        "args": TrainingArguments("unused", use_cpu=True, report_to="none"),
        "train_dataset": rows,
        "data_collator": MaskingCollator(tiny.tokenizer()),
        **changes,
    }


WRONG = {
    "no student": ({"model": None}, "model: expected a student / got none"),
    "model_init": ({"model": None, "model_init": lambda: None}, "got model_init.* build a trainer for each trial"),
    "a name of nothing": ({"model": "./bert-base"}, r"expected a folder with a config.json / got \./bert-base"),
    "a teacher's name": ({"teacher": "./bert-base"}, r"expected a folder with a config.json / got \./bert-base"),
    "a teacher in the place of the arguments": ({"args": tiny.mlm_model(4)}, "args: .* got BertForMaskedLM .* name"),
    "an objective for a model": ({"model": Objective([SoftTargetKL()])}, "model: expected a model, or the name of one"),
    "places changed": ({"args": tiny.tokenizer()}, "args: expected a value of TrainingArguments .* name them"),
    "a list of terms": ({"objective": [SoftTargetKL(1.0)]}, "expected a value of Objective / got list / pass"),
    "no objective": ({"objective": None}, r"got NoneType / pass objective=Objective\(\[SoftTargetKL"),
    "no arguments": ({"args": None}, "args: "),
    "a classifier": ({"model": tiny.classifier(2)}, 'masked.* got BertForSequence.* write Objective.terms, "class'),
    "a teacher that classifies": ({"teacher": tiny.classifier(4)}, "teacher: .*got BertForSequenceClassification"),
    "words for a classifier": ({"objective": Objective([SoftTargetKL(1.0)], "classification")},
                               'Objective.terms, "mlm"'),
    "no head": ({"model": tiny.mlm_model(2).bert}, "got BertModel .* load it with AutoModelForMaskedLM"),
    "no steps": ({"args": TrainingArguments("unused", use_cpu=True, max_steps=0)}, "training.max_steps: expected 1 or"),
    "no epochs": ({"args": TrainingArguments("unused", use_cpu=True, num_train_epochs=0)}, "training.num_train_epochs"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_trainer_says_what_it_cannot_use(case):
    """Prevents IndexError and AttributeError from within, for what users of Trainer write."""
    changes, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        DistillationTrainer(**parts(**changes))


def test_a_search_of_hyperparameters_is_refused(tmp_path):
    """Prevents an AttributeError, or trials that go on with one another's student."""
    with pytest.raises(UserError, match="build a trainer for each trial"):
        trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4)).hyperparameter_search(n_trials=2)


def test_a_saved_model_is_plain_and_a_checkpoint_resumes(tmp_path):
    """Prevents projections in the weights that users load, and checkpoints without them."""

    def new():
        student = tiny.mlm_model(2, hidden_size=16, num_attention_heads=4)
        return trainer(tmp_path, student, tiny.mlm_model(4), [HiddenCosine(1.0)], save_strategy="steps", save_steps=2)

    run = new()
    run.train()
    run.save_model(str(tmp_path / "saved"))
    names = {folder: set(load_file(tmp_path / folder / "model.safetensors")) for folder in ("saved", "checkpoint-2")}
    assert not any("projections" in name for name in names["saved"])
    assert any("projections" in name for name in names["checkpoint-2"])
    resumed = new()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(value.equal(resumed.model.state_dict()[name]) for name, value in run.model.state_dict().items())


def test_fp16_on_a_cpu_is_told(tmp_path, caplog):
    """Prevents a user who takes float32 for half precision."""
    with caplog.at_level("INFO", "distil_nlp"):
        trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), fp16=True)
    assert "fp16 has no effect on a CPU" in caplog.text


class _Killer:
    """Rows of which one ends the process that reads it, as a machine without memory does."""

    def __init__(self, rows):
        self.rows, self.own = rows, os.getpid()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        if number == 20 and os.getpid() != self.own:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.rows[number]


def test_a_worker_that_is_killed_is_one_message(tmp_path, capsys):
    """Prevents a traceback of torch where memory runs out in a loader's worker."""
    run = trainer(tmp_path, tiny.mlm_model(2), tiny.mlm_model(4), rows=_Killer(text_rows(24)),
                  dataloader_num_workers=1, max_steps=6)  # fmt: skip
    assert run_guarded(run.train) == 2
    error = capsys.readouterr().err
    assert "training.dataloader_num_workers" in error
    assert "memory" in error


# Every field -----------------------------------------------------------------------------------------------------

VALUES = {
    "lr_scheduler_type": ["cosine", "polynomial", "cosine_with_restarts", "constant_with_warmup", "inverse_sqrt",
                          "reduce_lr_on_plateau", "cosine_with_min_lr", "cosine_warmup_with_min_lr",
                          "warmup_stable_decay", "greedy"],
    "lr_scheduler_kwargs": [{}, {"num_cycles": 2}, {"min_lr": 0.1}, "{}"],
    "optim_args": ["", "weight_decay=0.1", "nonsense"],
    "optim_target_modules": ["all-linear", ["attn"]],
    "activation_checkpointing_kwargs": [{"use_reentrant": False}, {"use_reentrant": True}, {"nonsense": 1}],
    "gradient_checkpointing_kwargs": [{"use_reentrant": False}, {"every_n_layers": 2}],
    "torch_compile_backend": ["eager", "nonsense", ""],
    "torch_compile_mode": ["default", "nonsense"],
    "logging_strategy": ["no", "epoch", "steps"],
    "eval_strategy": ["no", "epoch", "steps"],
    "save_strategy": ["no", "epoch", "best"],
    "include_num_input_tokens_seen": [True, "all", "non_padding"],
    "log_level": ["debug", "error"],
    "report_to": ["none", "all", ["tensorboard"], "wandb", "mlflow", "codecarbon", "nonsense"],
    "include_for_metrics": [[], ["inputs"], ["loss", "inputs"]],
    "metric_for_best_model": ["loss", "eval_loss", "accuracy"],
    "accelerator_config": [{}, {"split_batches": True}, {"even_batches": False}, {"nonsense": 1},
                           {"gradient_accumulation_kwargs": {"num_steps": 2}}, {"use_configured_state": True}],
    "parallelism_config": [{}, {"dp_shard_size": 2}],
    "dataloader_multiprocessing_context": ["fork", "spawn", "nonsense"],
    "train_sampling_strategy": ["random", "sequential", "group_by_length"],
    "length_column_name": ["length", "nonsense"],
    "ddp_backend": ["gloo", "nccl"],
    "fsdp": ["full_shard", "full_shard auto_wrap"],
    "fsdp_config": [{}, {"min_num_params": 10}],
    "deepspeed": [{}, {"zero_optimization": {"stage": 2}}],
    "debug": ["", "underflow_overflow", ["underflow_overflow"]],
    "hub_strategy": ["end", "every_save", "checkpoint"],
    "per_device_eval_batch_size": [1, 64],
    "per_device_train_batch_size": [1, 64],
    "dataloader_num_workers": [0, 1],
    "local_rank": [-1, 0, 1],
    "resume_from_checkpoint": ["somewhere"],
    "seed": [0, 2**32 - 1],
    "data_seed": [0, 2**32 - 1],
    "output_dir": [],
    "trackio_static_space_id": ["me/x", False],
}  # fmt: skip
"""Odd but legal values; those of other fields follow from their types."""
BY_TYPE = {bool: [True, False], int: [1, 2, 0], float: [0.0, 0.5, 2.0], str: ["x", ""], list: [["x"], []]}


def values_of(name, kind):
    if name == "optim":
        return [item.value for item in OptimizerNames]
    if name in VALUES:
        return VALUES[name]
    kinds = [get_origin(one) or one for one in (get_args(kind) or [kind])]
    return [value for one in kinds for value in BY_TYPE.get(one, [])]


FIELDS = [(name, value) for name, kind in training_types().items() for value in values_of(name, kind)]


@pytest.mark.slow
@pytest.mark.parametrize("section", ["training", "teacher.finetune"])
@pytest.mark.parametrize(("name", "value"), FIELDS, ids=[f"{name}={value}" for name, value in FIELDS])
def test_every_field_works_or_is_refused_by_its_key(place, tmp_path, section, name, value):
    """Prevents fields of transformers that nobody has looked at."""
    overrides = [f"training.output_dir={tmp_path / 'run'}", f"training.{name}={json.dumps(value)}"]
    if section != "training":
        overrides[1] = f"teacher.finetune={json.dumps({'num_train_epochs': 1, name: value})}"
    message = refusal(place, *overrides)
    if message is not None:
        assert re.search(rf"{re.escape(section)}\.{name}\b", message), message
        return
    recipe = load_recipe(*_command(place, overrides))
    fields = recipe.training if section == "training" else recipe.teacher.finetune
    terms = None if section == "training" else [HardLabel()]
    fields = {"max_steps": 2, "use_cpu": True, "dataloader_pin_memory": False, **fields, "output_dir": None}
    fields.pop("output_dir")
    rows = Dataset.from_list([{**row, "length": len(row["input_ids"])} for row in task_rows(16)])
    eval_rows = rows if fields.get("eval_strategy", "no") != "no" else None
    run = trainer(tmp_path / "train", tiny.classifier(2), tiny.classifier(4), terms, kind="classification",
                  rows=rows, eval_rows=eval_rows, **fields)  # fmt: skip
    run.train()
    assert run.state.global_step == run.state.max_steps
