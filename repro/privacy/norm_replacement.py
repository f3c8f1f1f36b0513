"""``fix``: a model like one's own whose normalisation does not mix records."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from repro.errors import InputError
from repro.privacy.gate.state import HOOKS
from repro.privacy.validation import check_model, said

_MOST_GROUPS = 32  # Wu and He 2018 (arXiv 1803.08494)
_KNOWN: tuple[type[nn.Module], ...] = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
)


def fix(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy of ``model`` with GroupNorm in BatchNorm's place, and what was changed.

    The copy's parameters are new ones, so make the optimizer from it. What it computes is *not*
    what the model computed: train it, or at least its normalisation, after.

    - Every BatchNorm, in whatever mode, becomes ``GroupNorm`` of the same channels, ε, scale,
      shift, type, device and mode, ``requires_grad`` kept; running statistics go. Groups: the
      largest number up to 32 that divides the channels and leaves at least two in each (one
      channel: one group). ``BatchNorm1d`` becomes a single group, since its records may be
      vectors, in which a small group has too few numbers to normalise.
    - InstanceNorm with running statistics goes on without them.
    - All else stays, also what ``make_private`` will refuse by name.

    Returns (copy, lines): one line a change, e.g. ``layer1.bn: BatchNorm2d(64) -> GroupNorm(32,
    64)``; none if there was nothing to do. A layer under several names is changed once, and stays
    one layer. ``model`` itself is left as it was.

    Raises InputError, with the layer's name, for a BatchNorm that cannot be replaced: a class of
    one's own, a lazy one, one with hooks or parametrizations, ``BatchNorm1d`` of one feature; and
    for a model that cannot be copied.
    """
    check_model(model)
    for name, layer in model.named_modules():
        if isinstance(layer, _BatchNorm):
            _check(name, layer)
    copied = copied_model(model)
    made: dict[int, nn.Module] = {}
    lines = []
    for name, layer in list(copied.named_modules()):
        where = name or "(the model itself)"
        if isinstance(layer, _BatchNorm):
            made[id(layer)] = norm = _group_norm(layer)
            lines.append(
                f"{where}: {type(layer).__name__}({layer.num_features}) -> "
                f"GroupNorm({norm.num_groups}, {norm.num_channels})"
            )
        elif isinstance(layer, _InstanceNorm) and layer.track_running_stats:
            layer.track_running_stats = False
            layer.running_mean = layer.running_var = layer.num_batches_tracked = None
            lines.append(f"{where}: {type(layer).__name__} -> without running statistics")
    return with_replaced(copied, made), tuple(lines)


def copied_model(model: nn.Module) -> nn.Module:
    """A deep copy, or InputError for a model that cannot be copied."""
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError, ValueError) as problem:
        raise InputError("model", said(problem), "one that copy.deepcopy copies") from problem


def with_replaced(model: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    """``model`` with ``made[id(layer)]`` in every layer's place, under each of its names."""
    for module in list(model.modules()):
        for key, child in module._modules.items():
            if child is not None and id(child) in made:
                module._modules[key] = made[id(child)]
    return made.get(id(model), model)


def _check(name: str, layer: _BatchNorm) -> None:
    where, kind = f"layer {name or '(the model itself)'}", type(layer)
    if kind not in _KNOWN:
        raise InputError(
            where, kind.__name__, "torch's own BatchNorm, its size known: replace it by hand"
        )
    if hooked(layer):
        raise InputError(where, f"{kind.__name__} with hooks", "none, or replace it by hand")
    if kind is nn.BatchNorm1d and layer.num_features < 2:
        raise InputError(
            where, "BatchNorm1d(1)", "two features: one number less its own mean is always zero"
        )


def _group_norm(layer: _BatchNorm) -> nn.GroupNorm:
    channels, groups = layer.num_features, 1
    if not isinstance(layer, nn.BatchNorm1d):
        most = max(1, min(_MOST_GROUPS, channels // 2))
        groups = next(g for g in range(most, 0, -1) if channels % g == 0)
    state = layer.weight if layer.affine else layer.running_mean
    device, dtype = (None, None) if state is None else (state.device, state.dtype)
    norm = nn.GroupNorm(groups, channels, layer.eps, layer.affine, device=device, dtype=dtype)
    if layer.affine:
        norm.weight, norm.bias = layer.weight, layer.bias  # of the copy, and shared as they were
    return norm.train(layer.training)


def hooked(layer: nn.Module) -> bool:
    """Hooks (spectral norm is one; parametrizations make a class of their own) would be lost."""
    return any(getattr(layer, kind) for kind in HOOKS)
