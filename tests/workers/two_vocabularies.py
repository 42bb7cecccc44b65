"""A process of two, whose masked language models have vocabularies of their own; writes the losses of its steps."""

import copy
import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, TrainingArguments

from distil_nlp.data import MaskingCollator
from distil_nlp.data.common_corpus import pack_alike
from distil_nlp.data.common_masking import CommonMaskingCollator
from distil_nlp.data.common_vocabulary import CommonVocabulary
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from distil_nlp.objective.objective import Objective
from distil_nlp.teachers.frozen import FrozenTeacher
from distil_nlp.training.trainer import DistillationTrainer
from tests.helpers import byte_pairs, tiny
from tests.helpers.training import curve
from tests.helpers.worker import write_results

TEXTS = [f"{text} {word} 🙂 the naïve {text}" for word in ("the", "a zebra", "fish") for text in tiny.SENTENCES]


def permuted(tokenizer):
    """Return a copy of a tokenizer with other ids, and the copy's id of each of the tokenizer's."""
    order = np.random.default_rng(0).permutation(len(tokenizer))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["vocab"] = {token: int(order[number]) for token, number in state["model"]["vocab"].items()}
    for token in state["added_tokens"]:
        token["id"] = int(order[token["id"]])
    for value in (state["post_processor"].get("special_tokens") or {}).values():
        value["ids"] = [int(order[number]) for number in value["ids"]]
    for name in ("sep", "cls"):
        if isinstance(state["post_processor"].get(name), list):
            token, number = state["post_processor"][name]
            state["post_processor"][name] = [token, int(order[number])]
    state["added_tokens"].sort(key=lambda token: token["id"])
    names = {name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)), **names)
    made.model_input_names = list(tokenizer.model_input_names)
    return made, order


def permuted_model(model, order):
    """Return a copy of a BERT that reads and predicts the ids of `permuted`."""
    made, places = copy.deepcopy(model), torch.from_numpy(np.argsort(order))
    with torch.no_grad():
        words, bias = made.bert.embeddings.word_embeddings.weight, made.cls.predictions.bias
        words.copy_(words[places].clone())
        bias.copy_(bias[places].clone())
        if made.cls.predictions.decoder.weight is not words:
            made.cls.predictions.decoder.weight.copy_(words)
    made.bert.embeddings.word_embeddings.padding_idx = None
    return made


def rows(other, max_length=32):
    """Return packed blocks that both tokenizers read."""
    vocabulary = CommonVocabulary.of(tiny.tokenizer(), other)
    blocks = pack_alike({"text": TEXTS}, [tiny.tokenizer(), other], vocabulary, "text", max_length)
    return [dict(zip(blocks, row, strict=True)) for row in zip(*blocks.values(), strict=True)][:12]


def new(folder: Path, teacher, terms=None, other="bytes", callbacks=None, **arguments):
    """Return a trainer of a BERT student over twelve blocks; `other` None is the plain path."""
    own, other = tiny.tokenizer(), byte_pairs.tokenizer() if other == "bytes" else other
    data = rows(own if other is None else other)
    collate = MaskingCollator(own, 0.3, True, seed=3)
    if other is not None:
        vocabulary = CommonVocabulary.of(own, other)
        collate = CommonMaskingCollator(own, 0.3, True, seed=3, other=other, vocabulary=vocabulary)
        if not isinstance(teacher, FrozenTeacher):
            teacher = FrozenTeacher(teacher, "teacher_", vocabulary)
    fields = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "learning_rate": 1e-3, "seed": 7, **arguments}
    fixed = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1}
    return DistillationTrainer(
        model=tiny.mlm_model(2, seed=1),
        teacher=teacher,
        objective=Objective(terms or [SoftTargetKL(2.0), HardLabel(1.0), HiddenCosine(1.0)], "mlm"),
        args=TrainingArguments(str(folder), dataloader_pin_memory=False, **fixed, **fields),
        train_dataset=data,
        data_collator=collate,
        callbacks=callbacks,
    )


def train(folder: Path, batch: int) -> dict:
    made = new(folder, byte_pairs.mlm_model(4), per_device_train_batch_size=batch)
    made.train()
    return {"world_size": made.args.world_size, "curve": curve(made)}


if __name__ == "__main__":
    write_results(train)
