"""Book-keeping: norms, factors and the clipped sum from one forward and one backward pass.

After Bu et al. 2023 (arXiv 2210.00038): autograd runs on *constant* parameters, so it spends
nothing on parameter gradients; hooks hand each layer's input and output gradient to its rule,
which gives the record norms at once and the clipped sum once all norms are known.

Right or refused: a parameter used by several layers, or a layer called several times, has its
uses' gradients added per record before the norm is taken; a parameter that is touched outside
its own layer, an input changed in place after the layer read it, or a layer whose leading
dimension is not the records, raises ``Unsupported`` with its name. What does not show in the
pass itself is found by comparison, before the first step (``repro.privacy.gate``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from repro.privacy.batch import Batch
from repro.privacy.clipping import Clipping
from repro.privacy.engines.base import ClippedSum, Unsupported
from repro.privacy.engines.conv import ConvRule
from repro.privacy.engines.embedding import EmbeddingRule
from repro.privacy.engines.layers import LIMIT, Call, Contribution, Deferred, Kept, LayerRule
from repro.privacy.engines.linear import LinearRule
from repro.privacy.engines.norms import FrozenBatchNormRule, GroupNormRule, LayerNormRule
from repro.privacy.engines.stray import StrayUse
from repro.privacy.holding import call_holding
from repro.privacy.per_sample import losses_of_records, refuse_unused
from repro.privacy.precision import full_precision
from repro.privacy.validation import FrozenBuffers, flat_dtype, trainable_parameters

#: Exact layer types with a rule. A subclass may compute something else: it has none.
RULES: dict[type[nn.Module], LayerRule] = {
    nn.Conv1d: ConvRule(),
    nn.Conv2d: ConvRule(),
    nn.Conv3d: ConvRule(),
    nn.Linear: LinearRule(),
    nn.GroupNorm: GroupNormRule(),
    nn.LayerNorm: LayerNormRule(),
    nn.BatchNorm1d: FrozenBatchNormRule(),
    nn.BatchNorm2d: FrozenBatchNormRule(),
    nn.BatchNorm3d: FrozenBatchNormRule(),
    nn.Embedding: EmbeddingRule(),
}


class BookKeeping:
    """One backward pass; ghost norms or kept gradients per layer, whichever is cheaper."""

    name = "bookkeeping"
    # A Poisson batch of 64 expected records almost always fits in one: chunks of 32 take 7 %
    # longer, and save a third of the memory (DPResNet, 2 CPU cores).
    default_chunk = 80

    def reason_against(self, model: nn.Module) -> str | None:
        owners = _owners(model)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and id(parameter) not in owners:
                return f"no rule for the layer of parameter {name}"
        for name, layer in model.named_modules():
            if _has_trainable(layer) and type(layer) in RULES:
                reason = RULES[type(layer)].reason_against(layer) or _own_ways(layer)
                if reason:
                    return f"layer {name or '(the model itself)'} has {reason}"
        return None

    def clipped_sum(self, batch: Batch) -> ClippedSum:
        ledger = _Ledger(batch.model, records=len(batch), views=batch.views)
        with torch.enable_grad(), ledger.buffers:
            outputs = ledger.forward(batch.rows().detach())
            losses = losses_of_records(batch.loss_fn, outputs, batch.targets, batch.views)
            ledger.backward(losses.sum())
        return ledger.clipped_sum(batch.clipping).finite()


def _own_ways(layer: nn.Module) -> str | None:
    """What makes one layer compute something else than its type says."""
    if layer._forward_hooks or layer._forward_pre_hooks:
        return "its own forward hooks"
    if "forward" in vars(layer):
        return "a forward method of its own"
    for name, parameter in layer.named_parameters(recurse=False):
        if parameter.requires_grad and name not in ("weight", "bias"):
            return f"a parameter of its own, {name}"
    return None


class _Start(torch.autograd.Function):
    """Begins the graph at a layer whose input is data: same numbers, no copy, and no leaf, so
    that the model may change them in place."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, None


@dataclass
class _Use:
    """One call of a layer: its parameters' names in the model, and the input it read."""

    layer_name: str
    layer: Any
    parameters: dict[str, str]  # local name -> name in the model
    x: Tensor
    version: int
    saved: Any = None


@dataclass
class _Ledger:
    """Records one forward and backward pass of a chunk of records."""

    model: nn.Module
    records: int
    views: int
    uses: Counter[str] = field(default_factory=Counter)
    contributions: dict[str, Contribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parameters = trainable_parameters(self.model)
        self.constants = {name: p.detach() for name, p in self.parameters.items()}
        self.buffers = FrozenBuffers(self.model)
        self.device = next(iter(self.parameters.values())).device
        self._names = {id(p): name for name, p in self.parameters.items()}
        self._guard = StrayUse(self.constants, self.parameters)
        self._anchor = torch.zeros((), device=self.device, requires_grad=True)

    def forward(self, inputs: Tensor) -> Tensor:
        layers = [
            (name, layer, self._own(layer))
            for name, layer in self.model.named_modules()
            if _has_trainable(layer) and type(layer) in RULES
        ]

        def hooked() -> Any:
            for name, layer, own in layers:
                layer.register_forward_pre_hook(self._before(name), with_kwargs=True)
                layer.register_forward_hook(self._after(name, own), with_kwargs=True)
            with self._guard:
                return self.model(inputs)

        held = {**self.constants, **self.buffers.copies}
        outputs = call_holding(self.model, held, hooked, hooks=True)
        for name in self.parameters:
            if not self.uses[name]:
                refuse_unused(name)
        if not isinstance(outputs, Tensor) or outputs.shape[:1] != inputs.shape[:1]:
            raise Unsupported("model", type(outputs).__name__, "one output tensor, (B, …)")
        return outputs

    def _own(self, layer: nn.Module) -> dict[str, str]:
        """Local name -> name in the model, of the layer's own trainable parameters."""
        own = layer.named_parameters(recurse=False)
        return {local: self._names[id(p)] for local, p in own if p.requires_grad}

    def backward(self, loss: Tensor) -> None:
        """Every layer's output gradient, to its hook; nothing is accumulated anywhere, so what
        else the loss may depend on keeps its ``.grad``."""
        if loss.requires_grad:
            torch.autograd.grad(loss, [self._anchor], allow_unused=True)

    def _before(self, layer_name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._guard.enter_layer()
            self._check_leading(layer_name, _input_of(args, kwargs))

        return hook

    def _after(self, layer_name: str, parameters: dict[str, str]) -> Any:
        def hook(
            layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
        ) -> Tensor:
            self._guard.leave_layer()
            if not torch.is_grad_enabled():
                return output  # a constant, whatever the parameters are
            self._check_leading(layer_name, output)
            x = _input_of(args, kwargs).detach()
            self.uses.update(parameters.values())
            use = _Use(layer_name, layer, parameters, x, x._version)
            if output.requires_grad:
                use.saved = RULES[type(layer)].saved(layer, output)
            else:  # the first layers read data and constants only
                output = _Start.apply(output, self._anchor)
            output.register_hook(lambda g: self._account(use, g))
            return output

        return hook

    def _check_leading(self, layer_name: str, values: Any) -> None:
        # Exactly these: a multiple could be records folded with positions in either order.
        rows = self.records * self.views
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if torch.is_grad_enabled() and shape[:1] != (rows,):
            raise Unsupported(
                f"layer {layer_name}",
                f"values of shape {shape}",
                f"the {rows} records (and views) in the leading dimension, or engine='vmap'",
            )

    def _account(self, use: _Use, g: Tensor) -> None:
        if use.x._version != use.version:
            raise Unsupported(
                f"layer {use.layer_name}",
                "an input that is changed in place afterwards",
                "an out-of-place operation there, or engine='vmap'",
            )
        wanted = {local: self.uses[name] > 1 for local, name in use.parameters.items()}
        rule = RULES[type(use.layer)]
        with torch.no_grad(), full_precision(self.device):
            call = Call(use.layer, use.x, g.detach(), self.records, use.saved)
            new = rule.contributions(call, wanted)
            for local, contribution in new.items():
                self._add(use.parameters[local], contribution)

    def _add(self, name: str, contribution: Contribution) -> None:
        earlier = self.contributions.get(name)
        if earlier is None:
            self.contributions[name] = contribution
        else:  # used more than once, so every use was asked to be kept
            assert isinstance(earlier, Kept)
            assert isinstance(contribution, Kept)
            self.contributions[name] = earlier.plus(contribution)

    @torch.no_grad()
    def clipped_sum(self, clipping: Clipping) -> ClippedSum:
        with full_precision(self.device):
            squared = self._squared_norms(clipping)
            factors, finite, clipped = clipping.factors(squared)
            rows = None if bool(finite.all()) else finite
            size = sum(p.numel() for p in self.parameters.values())
            total = torch.zeros(size, dtype=squared.dtype, device=self.device)
            pieces = total.split([p.numel() for p in self.parameters.values()])
            for i, (name, piece) in enumerate(zip(self.parameters, pieces, strict=True)):
                if name in self.contributions:
                    part = self.contributions.pop(name).weighted_sum(factors[:, i], rows)
                    piece.view(part.shape).copy_(part)
        norms = squared.sum(dim=1).sqrt()
        return ClippedSum(total, norms, int((~finite).sum()), int(clipped.sum()))

    def _squared_norms(self, clipping: Clipping) -> Tensor:
        """(B, parameters); ghost norms that rounding may have spoiled are made again exactly."""
        dtype = flat_dtype(self.parameters)
        nothing = torch.zeros(self.records, dtype=dtype, device=self.device)
        squared, spread = [], []
        for name in self.parameters:
            # A parameter without a contribution: the layer ran, but the loss ignores its output.
            part = self.contributions.get(name)
            squared.append(nothing if part is None else part.squared_norms().to(dtype))
            spread.append(part.norms.spread.to(dtype) if isinstance(part, Deferred) else nothing)
        norms, spreads = torch.stack(squared, dim=1), torch.stack(spread, dim=1)
        doubtful = ~(spreads <= LIMIT * norms)
        if clipping.kind != "per_layer":  # there only the norm of all tensors together counts
            doubtful &= ~(spreads.sum(dim=1) <= LIMIT * norms.sum(dim=1))[:, None]
        for i, name in enumerate(self.parameters if bool(doubtful.any()) else ()):
            part = self.contributions.get(name)
            records = doubtful[:, i].nonzero().flatten().tolist()
            if records and isinstance(part, Deferred):
                norms[records, i] = part.recomputed(records).to(dtype)
        return norms


def _input_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a layer of one input was called with, by position or by whatever name."""
    return args[0] if args else next(iter(kwargs.values()), None)


def _has_trainable(layer: nn.Module) -> bool:
    return any(p.requires_grad for p in layer.parameters(recurse=False))


def _owners(model: nn.Module) -> set[int]:
    """Ids of the parameters that belong to layers with a rule, and to no other layer."""
    known: set[int] = set()
    unknown: set[int] = set()
    for layer in model.modules():
        ids = {id(p) for p in layer.parameters(recurse=False)}
        (known if type(layer) in RULES else unknown).update(ids)
    return known - unknown
