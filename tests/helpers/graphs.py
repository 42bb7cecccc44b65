"""A small ONNX graph that is written by hand, in a moment, beside a model in torch that computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from transformers import BertConfig
from transformers.modeling_outputs import SequenceClassifierOutput

VOCABULARY, WIDTH, INNER, CLASSES = 60, 16, 32, 3


class Bag(nn.Module):
    """A classifier of the mean of the tokens' vectors, with a hidden layer. Inputs and outputs are as transformers'."""

    def __init__(self, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embeddings = nn.Embedding(VOCABULARY, WIDTH)
            self.inner, self.outer = nn.Linear(WIDTH, INNER, bias=False), nn.Linear(INNER, CLASSES, bias=False)
        self.config = BertConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=INNER, pad_token_id=0)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask.unsqueeze(-1).float()
        mean = (self.embeddings(input_ids) * mask).sum(1) / mask.sum(1)
        return SequenceClassifierOutput(logits=self.outer(self.inner(mean).relu()))


def write_bag(model: Bag, path: Path) -> Path:
    """Write the graph of a model, its axes named as those of an export."""
    weights = {
        "words": model.embeddings.weight, "inner": model.inner.weight.T, "outer": model.outer.weight.T,
    }  # fmt: skip
    constants = {name: np.ascontiguousarray(weight.detach().numpy()) for name, weight in weights.items()}
    constants |= {"one": np.array([1]), "two": np.array([2])}
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["states"], "gather"),
        helper.make_node("Cast", ["attention_mask"], ["mask"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "two"], ["column"], "column"),
        helper.make_node("Mul", ["states", "column"], ["present"], "present"),
        helper.make_node("ReduceSum", ["present", "one"], ["sum"], "sum", keepdims=0),
        helper.make_node("ReduceSum", ["column", "one"], ["count"], "count", keepdims=0),
        helper.make_node("Div", ["sum", "count"], ["mean"], "mean"),
        helper.make_node("MatMul", ["mean", "inner"], ["product"], "inner"),
        helper.make_node("Relu", ["product"], ["active"], "relu"),
        helper.make_node("MatMul", ["active", "outer"], ["logits"], "outer"),
    ]
    axes = ["batch", "sequence"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, axes) for name in ("input_ids", "attention_mask")]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "bag", inputs, outputs, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def bag_inputs(rows: int = 3, tokens: int = 9) -> dict[str, torch.Tensor]:
    """Return ragged inputs, padded."""
    ids = torch.randint(5, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        ids[row, tokens - 2 * row :], mask[row, tokens - 2 * row :] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}
