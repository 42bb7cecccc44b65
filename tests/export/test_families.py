"""Graphs of tiny models of every family of encoders against the models, on ragged inputs of three shapes."""

import copy

import pytest
import torch

from distil_nlp.errors import UserError
from distil_nlp.export import tracing
from distil_nlp.export.graph import largest_difference, write_graph
from distil_nlp.export.session import GraphSession
from distil_nlp.tasks import task_kind
from tests.helpers import tiny
from tests.helpers.encoders import ENCODERS, encoder

pytestmark = pytest.mark.integration

REFUSED = {"Longformer": "expected LongformerForSequenceClassification to be traced into an ONNX graph"}
"""Families whose graph cannot be made, or would be another model → part of the message."""


@pytest.mark.parametrize("family", sorted(ENCODERS.keys() - REFUSED.keys()))
def test_the_graph_is_the_model(family, tmp_path):
    """Prevents a graph that is right for one length alone, or that looks at padding."""
    model, path = encoder(family), tmp_path / "model.onnx"
    info = write_graph(model, tiny.tokenizer(), task_kind("classification"), path)
    assert info.difference <= 1e-5
    assert info.exporter == "transformers"
    assert largest_difference(model, GraphSession(path), ["logits"]) == pytest.approx(info.difference)


@pytest.mark.parametrize("family", sorted(REFUSED))
def test_what_cannot_be_exported_is_refused(family, tmp_path):
    """Prevents a graph that computes something else from being written."""
    with pytest.raises(UserError, match=REFUSED[family]):
        write_graph(encoder(family), tiny.tokenizer(), task_kind("classification"), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_torchs_own_exporter_and_onnxruntimes_fusions_do_it_too(tmp_path, monkeypatch):
    """Prevents a tool that ends with the experimental exporter of transformers."""
    found = tracing.importlib.util.find_spec
    monkeypatch.setattr(
        tracing.importlib.util, "find_spec", lambda name: None if name == "transformers.exporters" else found(name)
    )
    model, path = encoder("Bert"), tmp_path / "model.onnx"
    info = write_graph(model, tiny.tokenizer(), task_kind("classification"), path)
    assert (info.exporter, info.difference <= 1e-5) == ("torch", True)
    assert "SkipLayerNormalization" in {node.op_type for node in _nodes(path)}


def test_a_graph_of_another_model_is_deleted(tmp_path, monkeypatch):
    """Prevents a file beside the student whose outputs are not its own."""
    whole = tracing.trace

    def changed(model, inputs, outputs):
        traced = whole(copy.deepcopy(model), inputs, outputs)  # a graph has the very weights of its model
        with torch.no_grad():
            model.classifier.weight += 1
        return traced

    monkeypatch.setattr("distil_nlp.export.graph.trace", changed)
    with pytest.raises(UserError, match=r"within 0.0001 of the student's / got a relative difference of"):
        write_graph(encoder("Bert"), tiny.tokenizer(), task_kind("classification"), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def _nodes(path):
    import onnx

    return onnx.load(str(path)).graph.node
