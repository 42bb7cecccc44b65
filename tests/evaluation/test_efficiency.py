"""Efficiency: operations and memory of a model are counted right, for all models alike, and leave them as they were."""

import copy

import pytest
import torch
import transformers
from transformers import BertForMaskedLM

from distil_nlp.data.qa_collator import QACollator
from distil_nlp.data.ranking import RankingCollator
from distil_nlp.evaluation.efficiency import measure_efficiency
from distil_nlp.evaluation.latency import LatencyPlan
from distil_nlp.signals.sdpa import RECORDING_SDPA
from tests.helpers import squad, tiny

VOCABULARY = len(tiny.VOCABULARY)


def costs(teacher, student, max_length=16, sizes=(1, 4), bf16=False, **changes):
    plan = LatencyPlan(sizes, **({"forwards": (2, 2), "warm_up": 1} | changes))
    models = {"teacher": teacher, "student": student}
    return measure_efficiency(models, None, dict, plan=plan, max_length=max_length, device="cpu", bf16=bf16)


def of_family(family, num_layers=2, **changes):
    sizes = {"vocab_size": 100, "num_hidden_layers": num_layers, "num_attention_heads": 4} | changes
    sizes |= {"dim": 32, "hidden_dim": 64} if family == "DistilBert" else {"hidden_size": 32, "intermediate_size": 64}
    return getattr(transformers, f"{family}ForMaskedLM")(getattr(transformers, f"{family}Config")(**sizes))


def block_flops(length, width=32, inner=64):
    """Per token: four projections, the feed-forward, scores and weighted values, 2 to a multiply-add."""
    return 2 * (4 * width**2 + 2 * width * inner) + 4 * length * width


@pytest.mark.parametrize("length", [16, 48])
def test_flops_are_the_closed_form(length):
    """Prevents attention that goes uncounted (fused on the CPU), a head left out, or totals of another batch."""
    found = costs(tiny.mlm_model(4), tiny.mlm_model(2), max_length=length)
    head = 2 * (32 * 32 + 32 * VOCABULARY)
    assert found["teacher"]["flops_per_token"] == 4 * block_flops(length) + head
    assert found["student"]["flops_per_token"] == 2 * block_flops(length) + head
    found = costs(tiny.classifier(4), tiny.classifier(2, num_labels=3), max_length=length)
    assert found["teacher"]["flops_per_token"] == 4 * block_flops(length) + 2 * (32 * 32 + 32 * 2) / length
    assert found["student"]["flops_per_token"] == 2 * block_flops(length) + 2 * (32 * 32 + 32 * 3) / length


def test_conditions_are_those_of_the_measurement():
    """Prevents figures whose device, precision or lengths nobody knows."""
    found = costs(tiny.mlm_model(4), tiny.mlm_model(2))
    assert set(found) == {"teacher", "student", "efficiency"}
    assert set(found["teacher"]) == set(found["student"]) == {"flops_per_token", "peak_memory_mib"}
    said = found["efficiency"]
    assert "CPU" in said.pop("device")
    assert said.pop("seconds") >= 0
    assert [(setting["batch_size"], setting["tokens"]) for setting in said.pop("latency")] == [(1, 16), (4, 16)]
    assert said == {"dtype": "float32", "max_length": 16, "warm_up": 1, "left_out": 0}


def test_memory_is_taken_where_the_plan_says_so():
    """Prevents a quick look that waits for the largest batch."""
    assert set(costs(tiny.mlm_model(2), tiny.mlm_model(1), memory=False)["student"]) == {"flops_per_token"}


class Greedy(BertForMaskedLM):
    """Holds 8 MiB a sequence before its own work, `held` times over, and lets go."""

    held = 1

    def forward(self, input_ids, attention_mask=None):
        for _ in range(3):
            block = [torch.empty(len(input_ids), 2, 2**20) for _ in range(self.held)]
            del block
        return super().forward(input_ids, attention_mask)


def test_peak_memory_is_what_lives_at_once():
    """Prevents a sum of all allocations, weights left out or tied ones counted twice, or another batch's peak."""
    once, twice = Greedy(tiny.bert_config(2)), Greedy(tiny.bert_config(2))
    twice.held = 2
    found = costs(twice, once, sizes=(1, 2))
    weights = sum(tensor.nbytes for tensor in (*once.parameters(), *once.buffers())) / 2**20
    assert found["student"]["peak_memory_mib"] == pytest.approx(16 + weights, abs=0.02)
    assert found["teacher"]["peak_memory_mib"] == pytest.approx(32 + weights, abs=0.02)


def test_peak_memory_counts_activations():
    """Prevents a peak that is the weights alone: the logits of all positions are there at the end."""
    found = costs(of_family("Bert", vocab_size=5000), tiny.mlm_model(2), sizes=(16,))
    weights = sum(tensor.nbytes for tensor in of_family("Bert", vocab_size=5000).parameters()) / 2**20
    logits = 16 * 16 * 5000 * 4 / 2**20
    assert weights + logits < found["teacher"]["peak_memory_mib"] < weights + 1.2 * logits


@pytest.mark.parametrize(
    ("teacher", "student", "length"),
    [
        (
            {"family": "Bert", "max_position_embeddings": 64},
            {"family": "DistilBert", "max_position_embeddings": 40},
            40,
        ),
        ({"family": "Roberta", "max_position_embeddings": 50, "pad_token_id": 1}, {"family": "Roberta"}, 48),
        ({"family": "Albert", "embedding_size": 16, "vocab_size": 90}, {"family": "Electra"}, 128),
    ],
    ids=["DistilBERT", "RoBERTa", "ALBERT-ELECTRA"],
)
def test_inputs_fit_both_models(teacher, student, length):
    """Prevents positions or tokens that a model does not have, and columns that it does not take."""
    found = costs(of_family(**teacher), of_family(**student), max_length=128)
    assert found["efficiency"]["max_length"] == length


def test_attention_as_training_left_it_is_counted_too():
    """Prevents a teacher that looks cheap because the recording attention goes uncounted."""
    plain, recording = tiny.mlm_model(2), tiny.mlm_model(2)
    recording.set_attn_implementation(RECORDING_SDPA)
    found = costs(recording, plain)
    assert found["teacher"]["flops_per_token"] == found["student"]["flops_per_token"]


def test_models_stay_as_they_are():
    """Prevents a measurement that moves training mode, dtype, weights or the random numbers that follow."""
    teacher, student = tiny.mlm_model(3).bfloat16().requires_grad_(False), tiny.mlm_model(2).train()
    before, state = copy.deepcopy(student.state_dict()), torch.get_rng_state()
    costs(teacher, student)
    assert teacher.dtype == torch.bfloat16
    assert student.training
    assert not teacher.training
    assert all(parameter.requires_grad for parameter in student.parameters())
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_bfloat16_is_the_same_for_a_frozen_teacher():
    """Prevents a bfloat16 teacher without gradients being set against a student whose weights autocast must cast."""
    model = tiny.mlm_model(2)
    found = costs(copy.deepcopy(model).bfloat16().requires_grad_(False), model, bf16=True)
    assert found["efficiency"]["dtype"] == "bfloat16"
    assert found["teacher"]["peak_memory_mib"] == found["student"]["peak_memory_mib"]
    assert found["student"]["peak_memory_mib"] != costs(model, model)["student"]["peak_memory_mib"]


def test_rows_of_every_collator_are_served():
    """Prevents a run that ends with an error where a collator reads more than a model does: answers, documents."""
    plan = LatencyPlan((2,), ("data",), seconds=0.01, forwards=(1, 1), memory=False)
    pairs = [{"input_ids": [2, 7, 3, 8 + i, 3], "attention_mask": [1] * 5, "labels": [0.0, 1.0]} for i in range(3)]
    served = {
        "qa": (tiny.reader(1), squad.windows(3), QACollator(tiny.tokenizer())),
        "ranking": (tiny.classifier(1, 1), pairs, RankingCollator(tiny.tokenizer())),
    }
    for model, rows, collator in served.values():
        found = measure_efficiency({"student": model}, rows, collator, plan=plan, max_length=40, device="cpu")
        assert [entry["lengths"] for entry in found["efficiency"]["latency"]] == ["data"]
