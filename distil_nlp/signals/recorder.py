"""Hooks that capture the signals of a forward pass.

A `Recorder` sits on a model as hooks, so that everything happens *inside* the model's own forward: what DDP,
FSDP or `torch.compile` wrap around the model also wraps the choice of rows and the projections. Autocast is around
`model.forward` alone, from which hooks on the model are outside: projections run in that of the encoder. A recorder
acts in the forwards of `forward_with_signals` alone; called by itself, the model behaves as if nothing were attached.
Several recorders may sit on one model: each forward is meant for one of them (`Call`), and the last that is removed
leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from distil_nlp.models.architecture import block_parts, ensemble_members, feed_forward_units, layer_stack
from distil_nlp.models.config_fields import set_for_distilling
from distil_nlp.models.outputs import output_logits
from distil_nlp.models.segments import fit_segments
from distil_nlp.models.trial import run_plainly, trial_batch, undisturbed
from distil_nlp.signals.attention import Probabilities, QueriesKeys
from distil_nlp.signals.attention_routing import (
    attention_before,
    choose_attention,
    give_attention_back,
    require_attention,
    require_maps_only,
    routes_attention,
)
from distil_nlp.signals.call import Call, calling, current_call
from distil_nlp.signals.output_projection import OutputProjection
from distil_nlp.signals.probe import axes_of, check_own_states, is_close, own_states, say_once, unlike_states
from distil_nlp.signals.sdpa import KEEP, show_probabilities
from distil_nlp.signals.types import (
    EMBEDDINGS,
    RECORDERS,
    GradientFunction,
    ProjectionInput,
    SignalRequest,
    VocabularyLoss,
)

PROJECTIONS = "distillation_projections"
"""The attribute of the student that holds the modules which only training needs."""


class Recorder:
    """Hooks on a model that replace its output by the requested signals, in the forwards of `forward_with_signals`.

    A block's states are those that reach the next block, which is what transformers calls `hidden_states`. Where
    signals from within a model are requested, a forward of a few tokens shows that they are the batch's tokens'.

    Attention of mapped layers needs SDPA with queries and keys kept; for models whose attention function transformers
    cannot replace (DeBERTa, MPNet), the maps of their eager attention are captured instead, with a warning.

    Args:
        model: a model with a head (`…ForMaskedLM`, `…ForSequenceClassification`).
        request: the signals to capture.
        head_rows: True to run the head on the token positions `rows["head"]` only (language modelling).
        projects: True if the head projects to the vocabulary; otherwise `Signals.vocabulary` replaces the logits.
        projections: name → its input; the modules themselves are in `model.<PROJECTIONS>`.

    Raises:
        UserError: if a requested signal cannot be had of this model.
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
        self.request, self.head_rows, self.projections = request, head_rows, projections or {}
        self._model, self._members = model, ensemble_members(model)
        self._hosts = list({id(host): host for host in (model, *self._members)}.values())
        self.layers = layer_stack(self._members[0]) if request.has_layers else []
        for member in self._members:
            set_for_distilling(member.config)
        routed = routes_attention(self._members)
        if not routed:
            require_maps_only(model, request)
        units = {layer: feed_forward_units(self._members[0], self.layers[layer]) for layer, _ in request.activations}
        self._axes = (0, 1, 2)
        self._differentiate: GradientFunction | None = None
        self.last: Tensor | None = None
        self._keeps_last = False
        self.output_projection = OutputProjection(model, projects) if head_rows and request.logits else None
        self._handles = [
            model.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True),
            model.register_forward_hook(self._finish),
            *(member.base_model.register_forward_hook(self._keep_last) for member in self._members),
        ]
        self._watch_hidden()
        self._watch_activations(units)
        self._routes = routed and (bool(request.attention) or attention_before(self._members[0]) == "sdpa")
        if request.attention:
            self._watch_attention(model, routed)
        for host in self._hosts:
            host.__dict__.setdefault(RECORDERS, []).append(self)
        choose_attention(self._members, self._routes)
        if request.reads_states:
            try:
                self._probe()
            except BaseException:
                self.remove()
                raise

    def remove(self) -> None:
        """Remove every hook; without another recorder the model is as it was before."""
        if self not in self._model.__dict__.get(RECORDERS, []):
            return
        for handle in self._handles:
            handle.remove()
        for host in self._hosts:
            host.__dict__[RECORDERS].remove(self)
        others = self._others()
        if self.output_projection is not None and all(other.output_projection is None for other in others):
            self.output_projection.release()
        if not any(other.request.attention for other in others):
            for module in {id(m): m for layer in self.layers for m in layer.modules()}.values():
                module.__dict__.pop(KEEP, None)
        if not any(other._routes for other in others):
            give_attention_back(self._members)

    def _others(self) -> list[Recorder]:
        """Return what else records on the model or its members; forget empty lists."""
        found = []
        for host in self._hosts:
            found += host.__dict__[RECORDERS] or host.__dict__.pop(RECORDERS)
        return found

    def _call(self) -> Call | None:
        """Return the forward that runs in this thread, if it is meant for this recorder."""
        call = current_call()
        return call if call is not None and call.recorder is self else None

    @contextmanager
    def measuring(self, measure: VocabularyLoss) -> Iterator[None]:
        """Within this context, pass the vocabulary's logits to `measure`, inside the forward.

        The result is `Signals.measured`. Where the model is wrapped (FSDP), its weights are whole only there.
        """
        assert self.output_projection is not None
        with self.output_projection.measuring(measure):
            yield

    @contextmanager
    def differentiating(self, differentiate: GradientFunction) -> Iterator[None]:
        """Within this context, compute `Signals.input_gradient` with `differentiate`, inside the forward.

        Outside a wrapper such as DDP, the logits no longer depend on the embeddings that it returns.
        """
        self._differentiate = differentiate
        try:
            yield
        finally:
            self._differentiate = None

    @contextmanager
    def keeping_last(self) -> Iterator[None]:
        """Within this context, keep the encoder's whole output in `last`, (batch, seq, width), with its graph."""
        self._keeps_last = True
        try:
            yield
        finally:
            self._keeps_last, self.last = False, None

    # Which modules are hooked ---------------------------------------------------------------------------------------

    def _watch_hidden(self) -> None:
        layers = {*self.request.states, *(layer for layer, _ in self.request.hidden)} - {len(self.layers) - 1}
        if self.request.input_gradient:
            layers.add(EMBEDDINGS)
        for block in {id(self.layers[i + 1]): self.layers[i + 1] for i in layers}.values():
            keep = partial(self._keep_states, block)
            self._handles.append(block_parts(block)[0].register_forward_pre_hook(keep, with_kwargs=True))

    def _watch_activations(self, units: dict[int, nn.Linear]) -> None:
        for layer, module in {id(self.layers[i]): (self.layers[i], module) for i, module in units.items()}.values():
            self._handles.append(module.register_forward_hook(partial(self._keep_activations, layer)))

    def _watch_attention(self, model: PreTrainedModel, routed: bool) -> None:
        if not routed:
            say_once(
                f"{type(model).__name__} cannot run a registered attention function, so attention terms read "
                "its own eager attention: right, but the (batch, heads, seq, seq) maps stay in memory"
            )
        for layer in {id(self.layers[i]): self.layers[i] for i in self.request.attention}.values():
            keep = partial(self.keep_attention, layer)
            for module in layer.modules():
                if routed:
                    module.__dict__[KEEP] = layer
                elif "dropout" in type(module).__name__.lower():
                    self._handles.append(module.register_forward_pre_hook(partial(show_probabilities, keep)))

    # What the model shows of a few tokens ---------------------------------------------------------------------------

    def _probe(self) -> None:
        """Compare what the hooks see with the states that the model gives by itself, and note the order of its axes.

        Raises:
            UserError: if they are not alike, or a signal does not have the batch's tokens.
        """
        base: Any = self._members[0].base_model
        batch = trial_batch(self._model)
        with undisturbed(self._model):
            own, last = own_states(base, batch)
            call = self._seen_in(batch, last.shape[1])
        self._require_states(base, call)
        call.hidden.pop(len(self.layers) - 1, None)  # the encoder's output, which `own_states` has looked at
        within = [*call.hidden.values(), *call.activations.values()]
        if within:
            check_own_states(base, own, len(self.layers), last.shape)
            self._axes = self._common_axes(within, last.shape)
        for layer, states in call.hidden.items():
            if not is_close(self._of_tokens(call, states), own[layer + 1][:, : call.length]):
                raise unlike_states(base, f"other states after block {layer} than its own output_hidden_states")
        require_attention(self._model, self.request, call)
        for layer, attention in call.attention.items():
            if (attention.shape[0], *attention.shape[2:]) != (len(last), call.length, call.length):
                raise unlike_states(base, f"attention of shape {tuple(attention.shape)} in layer {layer}")

    def attention_of(self, inputs: Mapping[str, Tensor]) -> dict[int, Any]:
        """Return the requested attention of the encoder alone, by layer; the model's random state is left as it is."""
        inputs = {name: value.to(self._model.device) for name, value in inputs.items()}
        with undisturbed(self._model):
            return self._seen_in(inputs, inputs["input_ids"].shape[1]).attention

    def _seen_in(self, batch: dict[str, Tensor], length: int) -> Call:
        """Return what the hooks see in a forward of the encoder alone."""
        call = Call(self, {"head": torch.arange(1, device=batch["input_ids"].device)}, {}, length=length)
        with calling(call):
            run_plainly(self._members[0].base_model, batch)
        return call

    def _require_states(self, base: nn.Module, call: Call) -> None:
        """Raise UserError if a block was not seen to run: SqueezeBERT calls its blocks' forwards past all hooks."""
        request, gradient = self.request, {EMBEDDINGS} if self.request.input_gradient else set()
        hidden = gradient.union(request.states, (layer for layer, _ in request.hidden)) - call.hidden.keys()
        missing = hidden.union({layer for layer, _ in request.activations} - call.activations.keys())
        if missing:
            raise unlike_states(base, f"no sight of layers {sorted(missing)}, which it runs past all hooks")

    def _common_axes(self, within: list[Tensor], shape: torch.Size) -> tuple[int, int, int]:
        """Return the order of axes that all signals from within the model have."""
        axes: set[Any] = {axes_of(states.shape, (shape[0], shape[1])) for states in within}
        if len(axes) > 1 or None in axes:
            shapes = {tuple(states.shape) for states in within}
            raise unlike_states(self._model, f"states of shape {', '.join(map(str, shapes))}")
        return axes.pop()

    # What the hooks do. Under activation checkpointing they may only keep references: an operation here would
    # be recorded in the forward and missing from the recomputation, which runs after `_finish`. --------------

    def _begin(
        self, module: PreTrainedModel, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        call = self._call()
        if call is None:
            return None
        call.length = _length_of(args, kwargs)
        choose_attention(self._members, self._routes)
        if self.output_projection is not None:
            self.output_projection.begin()
        is_ensemble = module is not self._members[0]  # which fits each member's segments itself
        call.inputs = kwargs if is_ensemble else fit_segments(module.config, kwargs)
        return args, dict(call.inputs)

    def _keep_states(self, block: nn.Module, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Keep what reaches a block: the states after the one before, or the embeddings.

        Of a frozen model the embeddings become a leaf, in place, if a loss is differentiated there: all that reads
        them counts, such as a convolution beside the first block.
        """
        call = self._call()
        if call is None:
            return
        layer = self._nth(call, block, "hidden") - 1
        states = args[0] if args else kwargs["hidden_states"]
        if layer == EMBEDDINGS and self._differentiate is not None and torch.is_grad_enabled():
            states.requires_grad_(True)
        wanted = layer == EMBEDDINGS or layer in self.request.states
        if wanted or any(layer == requested for requested, _ in self.request.hidden):
            call.hidden[layer] = states

    @torch.compiler.disable
    def _keep_activations(self, owner: nn.Module, module: nn.Module, args: tuple, output: Tensor) -> None:
        call = self._call()
        if call is None:
            return
        layer = self._nth(call, owner, "activations")
        if any(layer == requested for requested, _ in self.request.activations):
            call.activations[layer] = output

    @torch.compiler.disable
    def keep_attention(self, owner: nn.Module, **captured: Any) -> None:
        """Keep the inputs of an attention function, or of the dropout behind its softmax, of the layer `owner`."""
        call = self._call()
        if call is None or not self.request.attention:
            return
        layer = self._nth(call, owner, "attention")
        if layer in self.request.attention:
            if layer not in self.request.values:
                captured.pop("value", None)
            call.attention[layer] = Probabilities(**captured) if "whole" in captured else QueriesKeys(**captured)

    def _nth(self, call: Call, module: nn.Module, kind: str) -> int:
        """Return the number of the layer that is running; ALBERT runs the same module many times."""
        first = block_parts(module)[0]
        numbers = [i for i, layer in enumerate(self.layers) if block_parts(layer)[0] is first]
        number = numbers[min(call.counts[kind, id(first)], len(numbers) - 1)]
        call.counts[kind, id(first)] += 1
        return number

    def _keep_last(self, module: nn.Module, args: tuple, output: Any) -> Any:
        """Keep the encoder's output and, for language modelling, pass only the head's rows on."""
        call = self._call()
        if call is None:
            return None
        states = output[0]
        kind = states.device.type
        call.precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        if self._keeps_last and module is self._model.base_model:
            self.last = states
        last = len(self.layers) - 1
        if module is self._model.base_model and any(last == requested for requested, _ in self.request.hidden):
            call.hidden[last] = states
        if not self.head_rows:
            return None
        rows = call.rows["head"] if self.request.logits else call.rows["head"][:0]
        chosen = states.flatten(0, 1).index_select(0, rows).unsqueeze(1)  # LayoutLMv3 cuts sequences
        if isinstance(output, tuple):
            return (chosen, *output[1:])
        first = next(iter(output))
        return type(output)(**{**output, first: chosen})

    def _finish(self, module: nn.Module, args: tuple, output: Any) -> dict[str, Any] | None:
        """Return the signals as a plain dict: extra attributes of a ModelOutput would be lost under DDP."""
        call = self._call()
        if call is None:
            return None
        if self.output_projection is not None:
            self.output_projection.end()
        hidden = {  # gradients are summed in this order, the same in every run
            (layer, name): _rows(self._states(call, layer), call.rows[name])
            for layer, name in sorted(self.request.hidden)
        }
        require_attention(module, self.request, call)
        activations = {
            (layer, name): _rows(self._of_tokens(call, call.activations[layer]), call.rows[name])
            for layer, name in sorted(self.request.activations)
        }
        weights = {layer: self._matrices(layer) for layer in self.request.weights}
        sources: dict[str, Any] = {
            "hidden": hidden,
            "activations": activations,
            "weights": {(layer, ""): matrices for layer, matrices in weights.items()},
            "states": {(layer, ""): call.hidden[layer] for layer in self.request.states},
        }
        logits: Any = None
        if self.request.logits and call.vocabulary is None and call.measured is None:
            logits = output.logits.squeeze(1) if self.head_rows else output_logits(output)
            logits = logits if self.output_projection is None else self.output_projection.whole(call, logits)
        return {
            "logits": logits,
            "hidden": hidden,
            "projected": self._projected(call, module, sources),
            "attention": call.attention,
            "activations": activations,
            "weights": weights,
            "input_gradient": self._differentiate
            and self._of_tokens(call, self._differentiate(logits, call.hidden[EMBEDDINGS])),
            "vocabulary": call.vocabulary,
            "measured": call.measured,
        }

    def _projected(self, call: Call, model: nn.Module, sources: dict[str, Any]) -> dict[str, Any]:
        """Return what the projections make of their inputs, in the precision of the encoder."""
        modules: Any = getattr(model, PROJECTIONS, None)
        with torch.autocast(self._model.device.type, call.precision, enabled=call.precision is not None):
            return {
                name: modules[name](*_arguments(call, name, source, sources))
                for name, source in self.projections.items()
            }

    def _states(self, call: Call, layer: int) -> Tensor:
        """Return the states after a block as (batch, length, width); after the last they have the batch's tokens."""
        states = call.hidden[layer]
        return states if layer == len(self.layers) - 1 else self._of_tokens(call, states)

    def _of_tokens(self, call: Call, states: Tensor) -> Tensor:
        """Return states from within the model as (batch, length, width), without what it has padded itself."""
        states = states if self._axes == (0, 1, 2) else states.permute(self._axes)
        return states if states.shape[1] == call.length else states[:, : call.length]

    def _matrices(self, layer: int) -> list[Tensor]:
        """Return views of a block's matrices, in its order.

        Views, because DDP finds the used parameters by following the graph behind the forward's output, and a parameter
        itself has no graph behind it.
        """
        linear = [module for module in self.layers[layer].modules() if isinstance(module, nn.Linear)]
        return [module.weight.view_as(module.weight) for module in linear]


def _rows(states: Tensor, rows: Tensor) -> Tensor:
    """Return some tokens of a batch's states, (rows, width), by their numbers in the flattened batch."""
    return states.flatten(0, 1).index_select(0, rows)


def _arguments(call: Call, name: str, source: ProjectionInput, sources: dict[str, Any]) -> tuple[Any, ...]:
    """Return the arguments of a projection, the teacher's states in the precision of the student's."""
    if source.of == "inputs":
        return (call.inputs,)
    states = sources[source.of][source.layer, source.rows]
    if source.of == "states":
        return states, call.inputs
    return (states,) if source.teacher is None else (states, call.teacher_states[name].to(states.dtype))


def _length_of(args: tuple, inputs: dict[str, Any]) -> int:
    """Return the number of tokens of a forward's rows."""
    tokens = [inputs.get("input_ids"), inputs.get("inputs_embeds"), *args[:1]]
    return next((one.shape[1] for one in tokens if one is not None), 0)
