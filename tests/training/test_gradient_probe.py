"""Gradient norms and gradient conflict, against plain differentiation."""

import pytest
import torch

from distil_nlp.losses.attention_maps import AttentionKL
from distil_nlp.losses.hard_labels import HardLabel
from distil_nlp.losses.hidden_states import HiddenCosine
from distil_nlp.losses.soft_targets import SoftTargetKL
from tests.helpers import tiny
from tests.helpers.training import curve, trainer

TERMS = {"soft_target_kl": 5.0, "hard_label": 2.0, "hidden_cosine": 1.0, "attention_kl": 3.0}


def terms():
    return [SoftTargetKL(5.0), HardLabel(2.0), HiddenCosine(1.0, "last"), AttentionKL(3.0)]


def run(folder, kind="mlm", **further):
    if kind == "mlm":
        student, teacher = tiny.mlm_model(2, seed=1, hidden_dropout_prob=0.1), tiny.mlm_model(4)
    else:
        student, teacher = tiny.classifier(2, seed=1, hidden_dropout_prob=0.1), tiny.classifier(4)
    every = further.pop("gradients_every", None)
    made = trainer(folder, student, teacher, terms(), kind=kind, gradients_every=every, **further)
    made.train()
    return made


def plain(made, batch, kind):
    """The weighted terms' gradients at the last hidden state, by the definitions and transformers' own forward."""
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    inputs = {"input_ids": batch["input_ids"], "attention_mask": mask, "output_hidden_states": True}
    if "token_type_ids" in batch:
        inputs["token_type_ids"] = batch["token_type_ids"]
    seen, theirs = made.model(**inputs), made.teacher(**inputs)
    labels, chosen = batch["labels"], batch["labels"] != -100
    z, t = seen.logits[chosen], theirs.logits[chosen]
    p, q = (t / 2).softmax(-1), (z / 2).softmax(-1)
    apart = 1 - torch.cosine_similarity(seen.hidden_states[-1], theirs.hidden_states[-1], dim=-1)
    losses = {
        "soft_target_kl": 5 * 4 * (p * (p.log() - q.log())).sum() / len(z),
        "hard_label": -2 * z.log_softmax(-1)[torch.arange(len(z)), labels[chosen]].mean(),
        "hidden_cosine": apart[mask.bool()].mean(),
    }
    last = seen.hidden_states[-1]
    return {name: torch.autograd.grad(loss, last, retain_graph=True)[0] for name, loss in losses.items()}


@pytest.mark.parametrize("kind", ["mlm", "classification"])
def test_lengths_and_cosines_are_those_of_the_terms(tmp_path, kind):
    """Prevents a gradient of the unweighted term, of all terms together, or of another place."""
    made = run(tmp_path, kind, gradients_every=1, max_steps=1, learning_rate=0.0)
    logged = made.state.log_history[0]
    made.model.eval()  # no dropout, so that two forwards agree
    batch = made.data_collator([made.train_dataset[i] for i in range(8)])
    made.probe._step = -1
    counts = torch.tensor(made.objective.counts(batch["rows"]), dtype=torch.float32)
    factors = made.objective.row_weights(0.0, counts)
    made._probe_gradients(made.model, batch, factors)
    found, expected = made.probe.read(), plain(made, batch, kind)
    assert found["gradient_norm/attention_kl"] == 0.0
    for name, slope in expected.items():
        assert found[f"gradient_norm/{name}"] == pytest.approx(slope.norm().item(), rel=1e-4)
    cosine = torch.cosine_similarity(expected["soft_target_kl"].flatten(), expected["hard_label"].flatten(), dim=0)
    assert found["gradient_cosine/soft_target_kl/hard_label"] == pytest.approx(cosine.item(), abs=1e-5)
    assert not [name for name in found if name.startswith("gradient_cosine") and "attention" in name]
    assert {name for name in logged if name.startswith("gradient_norm")} == {f"gradient_norm/{name}" for name in TERMS}


def test_looking_changes_nothing(tmp_path):
    """Prevents a diagnosis that draws other dropout masks, or leaves a gradient behind."""
    plain = run(tmp_path / "plain", per_device_train_batch_size=4, gradient_accumulation_steps=2)
    looked = run(tmp_path / "looked", per_device_train_batch_size=4, gradient_accumulation_steps=2, gradients_every=2)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, looked.model.state_dict()[name]), name
    seen = [step for step, entry in enumerate(looked.state.log_history) if "gradient_norm/hard_label" in entry]
    assert seen == [0, 2]
    assert curve(plain) == curve(looked)
