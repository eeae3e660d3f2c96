"""Normalisation, backbone and head in one module, so that weights and preprocessing cannot be parted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from snellen.core.preprocessing import Preprocessing
from snellen.nn.stages import stage_features, stage_width


class Normalize(nn.Module):
    """Pixel values 0..255 [n, 3, h, w], uint8 or float -> (x / 255 - mean) / std, float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() - self.mean) / self.std

    def undo(self, normalized: Tensor) -> Tensor:
        """What the pixels were, 0..255: for pictures of what the network is really fed."""
        return normalized.float() * self.std + self.mean


class Network(nn.Module):
    """images uint8 or float [n, 3, h, w] with values 0..255 -> logits [n, num_outputs]. Exportable as it is.

    feature_stage  of nn.stages: the head reads its pooled outputs; -1: what the backbone returns
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        backbone: nn.Module,
        num_outputs: int,
        dropout: float = 0.0,
        feature_stage: int = -1,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing.mean, preprocessing.std)
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        self.feature_stage = feature_stage
        self.num_features = int(backbone.num_features)  # type: ignore[arg-type]
        if feature_stage >= 0:
            self.num_features = stage_width(backbone, feature_stage, preprocessing.input_size)
        self.head = nn.Linear(self.num_features, num_outputs)

    def features(self, images: Tensor) -> Tensor:
        """Pooled features [n, num_features]."""
        x = self.normalize(images)
        if self.feature_stage >= 0:
            return stage_features(self.backbone, x, [self.feature_stage])[self.feature_stage]
        features: Tensor = self.backbone(x)
        return features

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.dropout(self.features(images)))
        return logits
