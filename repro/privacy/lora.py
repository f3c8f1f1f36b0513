"""Low-rank adapters: private fine-tuning of few numbers beside a frozen model.

Hu et al. 2021 (arXiv 2106.09685), section 4.1: a layer's weight W stays as it is, and what is
trained is a product of two thin matrices beside it,

    W′ = W + s · B A,   A of shape (r, inputs), B of shape (outputs, r),   s = α ÷ r.

The noise of a private step has deviation σC in each trained number, however few records there are,
so the noise vector's length grows with the square root of their count; frozen parameters get no
gradient and no noise, and count nothing in the norm that is clipped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from repro.checks import Number, check_count, check_positive
from repro.errors import InputError
from repro.privacy.norm_replacement import copied_model, hooked, with_replaced
from repro.privacy.validation import check_model
from repro.shapes import Float


class LoRALayer(nn.Module):
    """A frozen ``base`` and its adapter: ``base(x) + scale · lora_B(lora_A(x))``.

    base: an ``nn.Linear``, or an ``nn.Conv2d`` with ``groups=1``; ``lora_A`` is then a convolution
        of the same window to ``rank`` channels and ``lora_B`` a 1×1 convolution. Both are ordinary
        layers without bias, so whatever takes per-record gradients of those takes these.
    A is drawn from N(0, 1 ÷ inputs of one output) and B is zero (section 4.1), so that the layer
    computes at first what ``base`` does.
    """

    def __init__(self, base: nn.Linear | nn.Conv2d, rank: int, scale: float) -> None:
        super().__init__()
        self.base, self.scale = base, scale
        first: nn.Linear | nn.Conv2d
        second: nn.Linear | nn.Conv2d
        if isinstance(base, nn.Linear):
            first = nn.Linear(base.in_features, rank, bias=False)
            second = nn.Linear(rank, base.out_features, bias=False)
        else:
            first = nn.Conv2d(
                base.in_channels,
                rank,
                base.kernel_size,  # type: ignore[arg-type]  # of as many sides as it has
                base.stride,  # type: ignore[arg-type]
                base.padding,  # type: ignore[arg-type]
                base.dilation,  # type: ignore[arg-type]
                bias=False,
                padding_mode=base.padding_mode,
            )
            second = nn.Conv2d(rank, base.out_channels, 1, bias=False)
        for layer in (first, second):
            layer.to(base.weight.device, base.weight.dtype)
        nn.init.normal_(first.weight, std=base.weight[0].numel() ** -0.5)
        nn.init.zeros_(second.weight)
        self.lora_A, self.lora_B = first, second
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * self.lora_B(self.lora_A(x))

    # Some models read a layer's weight themselves (``nn.TransformerEncoderLayer`` in eval mode).

    @property
    def weight(self) -> Float[Tensor, "outputs inputs ..."]:
        """W + s · B A, in the shape and type of the base's weight."""
        product = self.lora_B.weight.flatten(1) @ self.lora_A.weight.flatten(1)
        return self.base.weight + self.scale * product.view_as(self.base.weight)

    @property
    def bias(self) -> Float[Tensor, " outputs"] | None:
        return self.base.bias


def add_lora(
    model: nn.Module, rank: int, layers: Iterable[str] | None = None, *, scale: Number = 1.0
) -> tuple[nn.Module, tuple[str, ...]]:
    """A frozen copy of ``model`` with low-rank adapters beside some layers, and what was done.

    rank: r, 1 or above, at most the smaller side of each layer's weight as a matrix of
        (outputs, inputs of one output).
    layers: names as in ``model.named_modules()`` of layers that are exactly ``nn.Linear``, or
        ``nn.Conv2d`` with ``groups=1``. None: all such layers that this rank fits.
    scale: s > 0, the paper's α ÷ r.

    The copy computes what the model does, to the bit, until its adapters are trained. Only they
    have ``requires_grad``: make the optimizer from them. To train something else as well, a new
    head say, set ``requires_grad`` there before ``make_private``. A layer under several names gets
    one adapter. ``model`` itself is left as it was.

    Returns (copy, lines): one line an adapter, e.g. ``head: Linear of 8 × 64 -> with rank 4, 288
    numbers``, and one with the count of what is trained.

    Raises InputError, with the layer's name, for one that cannot be adapted: another class, no
    such name, a rank that does not fit, hooks or parametrizations, a weight that another layer
    uses too; for a model with adapters, and for one that cannot be copied or has no fitting layer.
    """
    check_model(model)
    rank, scale = check_count("rank", rank), check_positive("scale", scale)
    if any(isinstance(module, LoRALayer) for module in model.modules()):
        raise InputError("model", "adapters already", "merge_lora(model)[0], or one without")
    copied = copied_model(model)
    uses = Counter(id(p) for m in copied.modules() for p in m.parameters(recurse=False))
    if layers is None:
        chosen = [name for name, layer in copied.named_modules() if not _against(layer, rank, uses)]
        if not chosen:
            raise InputError("rank", rank, "one that fits an nn.Linear or nn.Conv2d of the model")
    else:
        try:
            chosen = [layers] if isinstance(layers, str) else list(layers)
        except TypeError:  # a tensor without dimensions too, which says that it can be gone through
            wanted = "names of layers, or None for all that fit"
            raise InputError("layers", type(layers).__name__, wanted) from None
        if not chosen:
            raise InputError("layers", chosen, "at least one name, or None for all that fit")
    copied.requires_grad_(False)
    made: dict[int, nn.Module] = {}
    lines = []
    for name in chosen:
        layer = _named(copied, name)
        reason = _against(layer, rank, uses)
        if reason:
            where = f"layer {name or '(the model itself)'}"
            raise InputError(where, *reason)
        assert isinstance(layer, (nn.Linear, nn.Conv2d))
        if id(layer) not in made:
            made[id(layer)] = LoRALayer(layer, rank, scale)
            outputs, inputs = layer.weight.flatten(1).shape
            sides = f"{type(layer).__name__} of {outputs} × {inputs}"
            lines.append(
                f"{name or '(the model itself)'}: {sides} -> with rank {rank}, "
                f"{rank * (inputs + outputs):,} numbers"
            )
    adapted = with_replaced(copied, made)
    return adapted, (*lines, _trained(adapted))


def merge_lora(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy with each adapter folded into its layer's weight, W + s · B A, and what was done.

    It has the layers of the model that ``add_lora`` was given and computes, to rounding, what the
    adapted one does. All that was frozen stays so. Folding is post-processing: no ε is spent.
    Returns (copy, lines): one line a layer; none if there was no adapter. ``model`` is left as it
    was. Raises InputError for a model that cannot be copied.
    """
    check_model(model)
    copied = copied_model(model)
    made: dict[int, nn.Module] = {}
    lines = []
    for name, layer in copied.named_modules():
        if isinstance(layer, LoRALayer):
            with torch.no_grad():
                layer.base.weight.copy_(layer.weight)
            made[id(layer)] = layer.base
            lines.append(f"{name or '(the model itself)'}: rank {len(layer.lora_A.weight)} folded")
    return with_replaced(copied, made), tuple(lines)


def _named(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except (AttributeError, TypeError):
        raise InputError("layers", name, "a name of model.named_modules()") from None


def _against(layer: nn.Module, rank: int, uses: Counter[int]) -> tuple[object, str] | None:
    """Why ``layer`` gets no adapter of this rank: what it is, and what would be right."""
    kind = type(layer).__name__
    # A subclass may compute something else, and parametrizations make one.
    if type(layer) is not nn.Linear and type(layer) is not nn.Conv2d:
        return kind, "exactly nn.Linear or nn.Conv2d"
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        return f"Conv2d with groups={layer.groups}", "groups=1: B A would join the groups"
    if hooked(layer):
        return f"{kind} with hooks", "none: they would see the layer without its adapter"
    if uses[id(layer.weight)] > 1:
        return f"{kind} whose weight another layer uses", "a weight of its own: folding changes it"
    outputs, inputs = layer.weight.flatten(1).shape
    if rank > min(outputs, inputs):
        return f"rank {rank}", f"at most {min(outputs, inputs)}, the smaller side of its weight"
    return None


def _trained(model: nn.Module) -> str:
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    trained, total = sum(n for n, wanted in counts if wanted), sum(n for n, _ in counts)
    return f"trained: {trained:,} of {total:,} numbers; the others are frozen"
