"""Hooks that show the signals of a forward pass.

A `Recorder` sits on a model as hooks, so that everything happens *inside* the model's own forward: what DDP,
FSDP, autocast or `torch.compile` wrap around the model also wraps the choice of rows and the projections. It
acts only when the forward is given `rows`; called without them, the model behaves as if nothing were attached.

The vocabulary's logits are the largest tensor of a step. Where a `Recorder` is told to, the output projection hands on
what it was given instead of projecting it (`Vocabulary`), so that losses can go through the logits chunk by chunk: the
teacher's leave the forward like that, the student's are measured within it.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.errors import UserError
from distil_nlp.models.architecture import ensemble_members, feed_forward_units, layer_stack
from distil_nlp.signals.attention import Probabilities, QueriesKeys
from distil_nlp.signals.sdpa import KEEP, RECORDING_SDPA, show_probabilities
from distil_nlp.signals.types import (
    EMBEDDINGS,
    GradientFunction,
    LazyLogits,
    ProjectionInput,
    SignalRequest,
    VocabularyLoss,
)

PROJECTIONS = "distillation_projections"
"""Where on the student the modules hang that only training needs."""


class Recorder:
    """Shows the signals of a `Request` in place of the model's output, whenever `rows` are passed to forward.

    Args:
        model: a model with a head (`…ForMaskedLM`, `…ForSequenceClassification`).
        request: what to show.
        head_rows: run the head on the token positions `rows["head"]` only (language modelling).
        projects: whether the head projects to the vocabulary; else `Signals.vocabulary` stands for the logits.
        projections: name → what it is called with; the modules themselves hang at `model.<PROJECTIONS>`.

    Attention of mapped layers needs SDPA with queries and keys kept; models whose attention transformers
    cannot re-route (DeBERTa, MPNet) are read at their eager attention instead, with a warning.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        request: SignalRequest,
        *,
        head_rows: bool = False,
        projects: bool = True,
        projections: dict[str, ProjectionInput] | None = None,
    ):
        self.request, self.head_rows, self.projects = request, head_rows, projects
        self.projections = projections or {}
        self.layers, self._model = layer_stack(ensemble_members(model)[0]), model
        routed = model._can_set_attn_implementation()
        if not routed:
            self._refuse_maps_alone()
        units = {
            layer: feed_forward_units(ensemble_members(model)[0], self.layers[layer])
            for layer, _ in request.activations
        }
        self._rows: dict[str, Tensor] | None = None
        self._measure: VocabularyLoss | None = None
        self._differentiate: GradientFunction | None = None
        self.last: Tensor | None = None
        self._keeps_last = False
        self._decoder = _projection(model) if head_rows and request.logits else None
        self._embedding = None
        if self._decoder is not None:
            self._decoder.forward = self._decode
            embedding = model.get_input_embeddings()
            self._embedding = embedding if embedding.weight is self._decoder.weight else None
        self._handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True),
            model.register_forward_hook(self._finish),
            *(one.base_model.register_forward_hook(self._keep_last) for one in ensemble_members(model)),
        ]
        self._watch_hidden()
        self._watch_activations(units)
        self._attention_before = model.config._attn_implementation
        if routed and (request.attention or self._attention_before == "sdpa"):
            model.set_attn_implementation(RECORDING_SDPA)
        if request.attention:
            self._watch_attention(model, routed)

    def remove(self) -> None:
        """Takes every hook off again; the model is as it was."""
        for handle in self._handles:
            handle.remove()
        if self._decoder is not None:
            self._decoder.__dict__.pop("forward", None)
        for module in {id(m): m for layer in self.layers for m in layer.modules()}.values():
            module.__dict__.pop(KEEP, None)
        if self._model.config._attn_implementation == RECORDING_SDPA:
            self._model.set_attn_implementation(self._attention_before)

    @contextmanager
    def measuring(self, measure: VocabularyLoss) -> Iterator[None]:
        """Within this, the vocabulary's logits go to `measure`, inside the forward, and come back as
        `Signals.measured`: where the model is wrapped, its weights are whole only there."""
        self._measure = measure
        try:
            yield
        finally:
            self._measure = None

    @contextmanager
    def differentiating(self, differentiate: GradientFunction) -> Iterator[None]:
        """Within this, `differentiate` makes `Signals.input_gradient`, inside the forward: behind what wraps the model,
        the logits no longer come from the embeddings that it gives."""
        self._differentiate = differentiate
        try:
            yield
        finally:
            self._differentiate = None

    @contextmanager
    def keeping_last(self) -> Iterator[None]:
        """Within this, `last` is the encoder's whole output, (batch, seq, width), with its graph."""
        self._keeps_last = True
        try:
            yield
        finally:
            self._keeps_last, self.last = False, None

    # What is watched ---------------------------------------------------------------------------------------

    def _watch_hidden(self) -> None:
        wanted = {layer for layer, _ in self.request.hidden} - {len(self.layers) - 1}
        if wanted:
            for module in {id(m): m for m in self.layers}.values():
                self._handles.append(module.register_forward_hook(self._keep_hidden))
        if EMBEDDINGS in wanted or self.request.input_gradient:
            self._handles.append(self.layers[0].register_forward_pre_hook(self._keep_embeddings, with_kwargs=True))

    def _watch_activations(self, units: dict[int, nn.Linear]) -> None:
        for layer, module in {id(self.layers[i]): (self.layers[i], module) for i, module in units.items()}.values():
            self._handles.append(module.register_forward_hook(partial(self._keep_activations, layer)))

    def _refuse_maps_alone(self) -> None:
        """Raises UserError where more than distributions is wanted."""
        wanted = sorted(self.request.values | self.request.scores)
        if wanted:
            raise UserError(
                f"expected queries, keys and values of layers {wanted} of {type(self._model).__name__} / got attention "
                "that cannot be routed, which shows probabilities alone / relations and scores cannot be had of it / "
                "set the weights of attention_scores_mse and of the relations to 0; attention_kl works"
            )

    def _watch_attention(self, model: PreTrainedModel, routed: bool) -> None:
        if not routed:
            warnings.warn(
                f"{type(model).__name__} cannot run a registered attention function, so attention terms read "
                "its own eager attention: right, but the (batch, heads, seq, seq) maps stay in memory",
                stacklevel=3,
            )
        for layer in {id(self.layers[i]): self.layers[i] for i in self.request.attention}.values():
            keep = partial(self._keep_attention, layer)
            for module in layer.modules():
                if routed:
                    module.__dict__[KEEP] = keep
                elif "dropout" in type(module).__name__.lower():
                    self._handles.append(module.register_forward_pre_hook(partial(show_probabilities, keep)))

    # What the hooks do. Under activation checkpointing they may only keep references: an operation here would
    # be recorded in the forward and missing from the recomputation, which runs after `_finish`. --------------

    def _begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        self._rows, self._shown = kwargs.pop("rows", None), kwargs.pop("shown", None) or {}
        self._vocabulary = self._measured = None
        self._add_embedding_gradient_by_rows(self._measure is not None)
        self._hidden: dict[int, Tensor] = {}
        self._attention: dict[int, dict[str, Any]] = {}
        self._activations: dict[int, Tensor] = {}
        self._calls: dict[str, int] = defaultdict(int)
        return args, kwargs

    def _keep_embeddings(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Keeps what the first block is given; a frozen model's becomes a leaf where a loss is differentiated there."""
        if self._rows is None or EMBEDDINGS in self._hidden:
            return None
        states = args[0] if args else kwargs["hidden_states"]
        if self._differentiate is not None and not states.requires_grad and torch.is_grad_enabled():
            states = states.detach().requires_grad_()
            args, kwargs = ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})
        self._hidden[EMBEDDINGS] = states
        return args, kwargs

    def _keep_hidden(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self._rows is None:
            return
        layer = self._nth(module, "hidden")
        if any(layer == wanted for wanted, _ in self.request.hidden):
            self._hidden[layer] = output[0] if isinstance(output, tuple) else output

    @torch.compiler.disable
    def _keep_activations(self, owner: nn.Module, module: nn.Module, args: tuple, output: Tensor) -> None:
        if self._rows is None:
            return
        layer = self._nth(owner, "activations")
        if any(layer == wanted for wanted, _ in self.request.activations):
            self._activations[layer] = output

    def _keep_attention(self, owner: nn.Module, **seen: Any) -> None:
        """Called from within a layer, by the attention function or a dropout's hook, with what it was given."""
        if self._rows is None:
            return
        layer = self._nth(owner, "attention")
        if layer in self.request.attention:
            if layer not in self.request.values:
                seen.pop("value", None)
            self._attention[layer] = Probabilities(**seen) if "whole" in seen else QueriesKeys(**seen)

    def _nth(self, module: nn.Module, kind: str) -> int:
        """The number of the layer that runs now; ALBERT runs one module many times."""
        places = [i for i, layer in enumerate(self.layers) if layer is module]
        place = places[min(self._calls[f"{kind}{id(module)}"], len(places) - 1)]
        self._calls[f"{kind}{id(module)}"] += 1
        return place

    def _keep_last(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """Keeps the encoder's output and, for language modelling, hands only the head's rows on."""
        if self._rows is None:
            return None
        states = output[0]
        if self._keeps_last and module is self._model.base_model:
            self.last = states
        last = len(self.layers) - 1
        if module is self._model.base_model and any(last == wanted for wanted, _ in self.request.hidden):
            self._hidden[last] = states
        if not self.head_rows:
            return None
        rows = self._rows["head"] if self.request.logits else self._rows["head"][:0]
        chosen = states.flatten(0, 1).index_select(0, rows).unsqueeze(0)
        if isinstance(output, tuple):
            return (chosen, *output[1:])
        first = next(iter(output))
        return type(output)(**{**output, first: chosen})

    def _decode(self, states: Tensor) -> Tensor:
        """In place of the output projection's forward: its input, if the logits are not wanted as they are."""
        decoder = self._decoder
        if self._rows is None or (self.projects and self._measure is None):
            return F.linear(states, decoder.weight, decoder.bias)
        self._hand_on(LazyLogits(states.squeeze(0), decoder.weight, decoder.bias))
        return states

    def _hand_on(self, vocabulary: LazyLogits) -> None:
        if self._measure is None:
            self._vocabulary = vocabulary
        else:
            self._measured = self._measure(vocabulary)

    def _add_embedding_gradient_by_rows(self, wanted: bool) -> None:
        """On the CPU, where the embedding's weights are the output projection's too: the words of a batch are added to
        its gradient, which is whole already, instead of a second table of mostly zeros. Set for the forward alone,
        since DDP would take the sum for sparse."""
        if self._embedding is not None:
            self._embedding.sparse = wanted and self._embedding.weight.device.type == "cpu"

    def _finish(self, module: nn.Module, args: tuple, output: Any) -> dict[str, Any] | None:
        """The signals as a plain dict: extra attributes of a ModelOutput would be lost under DDP."""
        if self._rows is None:
            return None
        rows, self._rows = self._rows, None
        self._add_embedding_gradient_by_rows(False)
        hidden = {
            (layer, name): self._hidden[layer].flatten(0, 1).index_select(0, rows[name])
            for layer, name in self.request.hidden
        }
        self._complain_if_missing(module)
        activations = {
            (layer, name): self._activations[layer].flatten(0, 1).index_select(0, rows[name])
            for layer, name in self.request.activations
        }
        weights = {layer: self._matrices(layer) for layer in self.request.weights}
        of_weights = {(layer, ""): matrices for layer, matrices in weights.items()}
        sources = {"hidden": hidden, "activations": activations, "weights": of_weights}
        logits = None
        if self.request.logits and self._vocabulary is None and self._measured is None:
            logits = output.logits.squeeze(0) if self.head_rows else output.logits
            if self.head_rows and not (self.projects and self._measure is None):  # the head projects in its own way
                self._hand_on(LazyLogits(logits))
                logits = None
        bank = getattr(module, PROJECTIONS, None)
        signals = {
            "logits": logits,
            "hidden": hidden,
            "projected": {
                name: bank[name](*self._given(name, source, sources[source.of][source.layer, source.rows]))
                for name, source in self.projections.items()
            },
            "attention": self._attention,
            "activations": activations,
            "weights": weights,
            "input_gradient": self._differentiate and self._differentiate(logits, self._hidden[EMBEDDINGS]),
            "vocabulary": self._vocabulary,
            "measured": self._measured,
        }
        self._hidden, self._attention, self._activations, self._shown = {}, {}, {}, {}
        self._vocabulary = self._measured = None
        return signals

    def _matrices(self, layer: int) -> list[Tensor]:
        """A block's, in its order. As views: DDP looks for what was used behind what the forward gives, and a parameter
        itself has nothing behind it."""
        linear = [module for module in self.layers[layer].modules() if isinstance(module, nn.Linear)]
        return [module.weight.view_as(module.weight) for module in linear]

    def _given(self, name: str, source: ProjectionInput, states: Tensor) -> tuple[Tensor, ...]:
        """What a projection is called with; the teacher's states in the precision of the student's."""
        return (states,) if source.teacher is None else (states, self._shown[name].to(states.dtype))

    def _complain_if_missing(self, model: nn.Module) -> None:
        missing = self.request.attention - self._attention.keys()
        if missing:
            raise UserError(
                f"expected attention of layers {sorted(missing)} of {type(model).__name__} / got none: its "
                "attention neither calls a registered function nor drops out probabilities / the attention "
                "terms cannot see it / set their weight to 0"
            )


@torch.no_grad()
def _projection(model: nn.Module) -> nn.Linear | None:
    """The layer whose output is the logits, as it is; None where a head projects in another way (DeBERTa's newer head,
    ESM, MobileBERT). A forward of two tokens tells."""
    decoder, seen = model.get_output_embeddings(), []
    if not isinstance(decoder, nn.Linear) or decoder.out_features != model.config.vocab_size:
        return None
    handle, was_training = decoder.register_forward_hook(lambda *one: seen.append(one[-1])), model.training
    logits = model.eval()(input_ids=torch.ones(1, 2, dtype=torch.long, device=decoder.weight.device)).logits
    handle.remove()
    model.train(was_training)
    return decoder if len(seen) == 1 and seen[0] is logits else None
