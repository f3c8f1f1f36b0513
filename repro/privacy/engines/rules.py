"""Which layers book-keeping has a rule for."""

from __future__ import annotations

from torch import nn

from repro.privacy.engines.conv import ConvRule
from repro.privacy.engines.embedding import EmbeddingRule
from repro.privacy.engines.layers import LayerRule
from repro.privacy.engines.linear import LinearRule
from repro.privacy.engines.norms import FrozenBatchNormRule, GroupNormRule, LayerNormRule

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
