"""Graphs that are run, quantised and scored: what onnxruntime makes of them beside torch."""

import numpy as np
import onnx
import pytest
import torch
from datasets import Dataset

from distil_nlp.errors import UserError
from distil_nlp.evaluation.predict import Outputs
from distil_nlp.export.forwards import graph_forward
from distil_nlp.export.gates import gate_block
from distil_nlp.export.quantization import Int8Settings, sums_saturate, write_int8
from distil_nlp.export.scoring import STUDENT_MODEL, ScoredRows, score_forwards
from distil_nlp.export.session import GraphSession
from distil_nlp.tasks import task_kind
from distil_nlp.training.fake_quantization import fake_int8_weight, fake_uint8_rows, fake_uint8_states
from tests.helpers import tiny
from tests.helpers.graphs import CLASSES, VOCABULARY, Bag, bag_inputs, write_bag

CLASSIFICATION = task_kind("classification")


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    model = Bag()
    return model, write_bag(model, tmp_path_factory.mktemp("bag") / "model.onnx")


def test_a_session_computes_with_as_many_threads_as_torch(bag):
    """Prevents a latency of one thread that was measured with all of them."""
    model, path = bag
    session = GraphSession(path)
    for threads in (1, 2, 1):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            found = session.run(bag_inputs())["logits"]
        finally:
            torch.set_num_threads(before)
        assert torch.allclose(found, model(**bag_inputs()).logits, atol=1e-6)
    assert session._by_threads.keys() == {1, 2}


def test_what_a_batch_lacks_is_filled_in(bag):
    """Prevents a crash on batches without padding, which have no mask, and on columns that the graph does not have."""
    model, path = bag
    inputs = {name: value[:1] for name, value in bag_inputs().items()}
    extra = {"input_ids": inputs["input_ids"], "labels": torch.tensor([1]), "rows": {}}
    found = graph_forward(model, CLASSIFICATION, path)(extra)
    assert torch.allclose(found, model(**inputs).logits, atol=1e-6)


def weights_of(path):
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(str(path)).graph.initializer}


def of_types(path, *types):
    return [node for node in onnx.load(str(path)).graph.node if node.op_type in types]


@pytest.mark.parametrize("layers", ["all", "feed_forward"])
def test_int8_stays_close(bag, tmp_path, layers):
    """Prevents an int8 copy that computes something else, as where sums of 8-bit products saturate."""
    model, path = bag
    target = tmp_path / "int8.onnx"
    write_int8(path, target, Int8Settings("dynamic", layers, sums_saturate()), model.config)
    wanted, found = model(**bag_inputs()).logits, GraphSession(target).run(bag_inputs())["logits"]
    assert 0 < (found - wanted).abs().max() < 0.05 * wanted.abs().max()
    assert "words_quantized" in weights_of(target)


@pytest.mark.parametrize(("reduce_range", "bits"), [(False, 8), (True, 7)])
def test_weights_have_the_bits_that_were_asked_for(bag, tmp_path, reduce_range, bits):
    """Prevents a setting without effect."""
    model, path = bag
    write_int8(path, tmp_path / "int8.onnx", Int8Settings("dynamic", "all", reduce_range), model.config)
    inner = weights_of(tmp_path / "int8.onnx")["inner_quantized"]
    assert 2 ** (bits - 2) < abs(inner.astype(int)).max() <= 2 ** (bits - 1)


@pytest.mark.parametrize("reduce_range", [False, True])
def test_training_rounds_as_the_graph_does(bag, tmp_path, reduce_range):
    """Prevents a student that is trained for other scales, channels or ranges than its int8 copy has."""
    model, path = bag
    target = tmp_path / "int8.onnx"
    write_int8(path, target, Int8Settings("dynamic", "all", reduce_range), model.config)
    known, inputs = weights_of(target), bag_inputs()
    exported = (known["words_quantized"].astype(np.float32) - known["words_zero_point"]) * known["words_scale"]
    words = fake_uint8_rows(model.embeddings.weight, model.embeddings.weight)
    torch.testing.assert_close(words, torch.from_numpy(exported), atol=1e-6, rtol=1e-5)
    states, mask = words[inputs["input_ids"]], inputs["attention_mask"].unsqueeze(-1).float()
    states = (states * mask).sum(1) / mask.sum(1)
    for layer, name in ((model.inner, "inner"), (model.outer, "outer")):
        weight = fake_int8_weight(layer.weight, reduce_range)
        exported = known[f"{name}_quantized"].astype(np.float32) * known[f"{name}_scale"]
        torch.testing.assert_close(weight, torch.from_numpy(exported.T), atol=1e-6, rtol=1e-5)
        states = fake_uint8_states(states) @ weight.T
        states = states.relu() if name == "inner" else states
    if reduce_range or not sums_saturate():
        found = GraphSession(target).run(inputs)["logits"]
        torch.testing.assert_close(found, states, atol=1e-5 * float(states.detach().abs().max()), rtol=1e-5)


def test_feed_forward_alone_leaves_other_products(bag, tmp_path):
    """Prevents a setting that quantises attention all the same, or nothing at all."""
    model, path = bag
    config = type(model.config)(**model.config.to_dict() | {"intermediate_size": 7})
    with pytest.raises(UserError, match="expected feed-forward layers of width 7 in the graph / got none"):
        write_int8(path, tmp_path / "int8.onnx", Int8Settings("dynamic", "feed_forward"), config)
    assert not (tmp_path / "int8.onnx").exists()


def test_static_ranges_come_from_rows(bag, tmp_path):
    """Prevents ranges of activations that no row was asked for, and rows of one length only."""
    model, path = bag
    rows = [{name: value[:1] for name, value in bag_inputs(1, tokens).items()} for tokens in (3, 5, 9, 12)]
    write_int8(path, tmp_path / "int8.onnx", Int8Settings("static", "all", sums_saturate()), model.config, rows)
    wanted, found = model(**rows[2]).logits, GraphSession(tmp_path / "int8.onnx").run(rows[2])["logits"]
    assert (found - wanted).abs().max() < 0.1 * wanted.abs().max()
    assert of_types(tmp_path / "int8.onnx", "QuantizeLinear")


@pytest.mark.parametrize(
    ("machine", "flags", "saturates"),
    [
        ("x86_64", "flags : avx2 avx512f", True),
        ("x86_64", "flags : avx2 avx512_vnni", False),
        ("AMD64", "flags : avx_vnni", False),
        ("x86_64", None, True),
        ("aarch64", None, False),
    ],
)
def test_seven_bits_are_for_processors_whose_sums_saturate(monkeypatch, machine, flags, saturates):
    """Prevents int8 sums that overflow where the processor has no VNNI, and a loss of a bit where it has."""

    def read(*args, **options):
        if flags is None:
            raise OSError
        return flags

    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("pathlib.Path.read_text", read)
    assert sums_saturate() is saturates


def rows_of(labels, count=12):
    generator = np.random.default_rng(0)
    ids = [generator.integers(5, VOCABULARY, size=3 + i % 7).tolist() for i in range(count)]
    mask = [[1] * len(row) for row in ids]
    return Dataset.from_dict(
        {"input_ids": ids, "attention_mask": mask, "labels": labels, "length": [len(row) for row in ids]}
    )


def collate(features):
    padded = tiny.tokenizer().pad([{k: f[k] for k in ("input_ids", "attention_mask")} for f in features],
                                  return_tensors="pt")  # fmt: skip
    return dict(padded) | {"labels": torch.tensor([feature["labels"] for feature in features])}


def test_scores_are_of_the_rows_in_their_order(bag):
    """Prevents scores against labels of other rows, as rows are run by length."""
    model, path = bag
    labels = [0] * 12
    rows = rows_of(labels)
    truth = [int(model(**{k: torch.tensor([row[k]]) for k in ("input_ids", "attention_mask")}).logits.argmax())
             for row in rows]  # fmt: skip
    wrong = [truth[0], *((one + 1) % CLASSES for one in truth[1:3]), *truth[3:]]
    splits = {"test": rows_of(wrong)}
    kept = {"test": Outputs(np.zeros((12, CLASSES), np.float32), np.array(wrong))}

    def student(inputs):
        return model(inputs["input_ids"], inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))).logits

    def constant(inputs):
        return torch.tensor([[9.0, 0, 0]]).expand(len(inputs["input_ids"]), -1)

    forwards = {STUDENT_MODEL: student, "onnx": graph_forward(model, CLASSIFICATION, path), "other": constant}
    columns = frozenset({"input_ids", "attention_mask"})
    with torch.no_grad():
        found = score_forwards(
            forwards, ScoredRows("classification", CLASSIFICATION, splits, collate, columns, kept, batch_size=5)
        )
    assert found["student"].metrics["accuracy"] == found["onnx"].metrics["accuracy"] == 10 / 12
    assert found["student"].agreement == {}
    assert found["onnx"].agreement["agreement"] == 1
    assert found["other"].agreement["agreement"] == truth.count(0) / 12


@pytest.mark.parametrize(
    ("int8", "threshold", "kept", "passed"),
    [(0.8, 0.99, 1.0, True), (0.79, 0.99, 0.9875, False), (0.79, 0.98, 0.9875, True), (0.9, 0.99, 1.125, True)],
)
def test_the_gate_is_a_share_of_the_graphs_score(int8, threshold, kept, passed):
    """Prevents an int8 copy that lost much from passing, and one that lost nothing from being refused."""
    found = gate_block({"accuracy": 0.8}, {"accuracy": int8}, "classification", threshold)
    assert found == {"threshold": threshold, "kept": pytest.approx(kept), "passed": passed}


def test_a_share_that_is_not_known_is_not_enough():
    """Prevents a copy of a worthless model from being published by a division by zero."""
    assert gate_block({"accuracy": 0.0}, {"accuracy": 0.0}, "classification", 0.5)["passed"] is False
