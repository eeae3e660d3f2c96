"""EfficientNet-Lite0, weight for weight timm's ``tf_efficientnet_lite0``, without timm's import time.

timm stays the reference: a test holds that both give the same features from the same weights. It is written here
because importing timm takes three times as long as computing the features of 400 photos with it.

Tan & Le, EfficientNet, 2019 (arXiv:1905.11946); Lite: no squeeze-and-excite, ReLU6, fixed stem and head.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

# (block, repeats, kernel, stride of the first, expansion, channels) of each stage
_STAGES = (
    ("separable", 1, 3, 1, 1, 16),
    ("inverted", 2, 3, 2, 6, 24),
    ("inverted", 2, 5, 2, 6, 40),
    ("inverted", 3, 3, 2, 6, 80),
    ("inverted", 3, 5, 1, 6, 112),
    ("inverted", 4, 5, 2, 6, 192),
    ("inverted", 1, 3, 1, 6, 320),
)
_EPS = 1e-3  # of the batch norms: TensorFlow's default, which the weights were trained with


class SameConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: with stride 2 an even input gets its odd pixel right and below."""

    def forward(self, x: Tensor) -> Tensor:  # [n, c, h, w]
        if self.stride == (1, 1):
            return F.conv2d(x, self.weight, self.bias, 1, self.kernel_size[0] // 2, 1, self.groups)
        pads = [self._pad(side, kernel) for side, kernel in zip(x.shape[-2:], self.kernel_size, strict=True)]
        x = F.pad(x, (pads[1] // 2, pads[1] - pads[1] // 2, pads[0] // 2, pads[0] - pads[0] // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)

    def _pad(self, side: int, kernel: int) -> int:
        stride = self.stride[0]
        return max((-(-side // stride) - 1) * stride + kernel - side, 0)


def _conv(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> SameConv2d:
    return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)


class SeparableBlock(nn.Module):
    """Depthwise, then pointwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        self.conv_dw = _conv(inputs, inputs, kernel, stride, groups=inputs)
        self.bn1 = nn.BatchNorm2d(inputs, eps=_EPS)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_pw = _conv(inputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.act1(self.bn1(self.conv_dw(x)))
        y: Tensor = self.bn2(self.conv_pw(mixed))
        return x + y if self.residual else y


class InvertedResidual(nn.Module):
    """Widen, depthwise, narrow (Sandler et al., MobileNetV2, 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.conv_pw = _conv(inputs, width)
        self.bn1 = nn.BatchNorm2d(width, eps=_EPS)
        self.act1 = nn.ReLU6(inplace=True)
        self.conv_dw = _conv(width, width, kernel, stride, groups=width)
        self.bn2 = nn.BatchNorm2d(width, eps=_EPS)
        self.act2 = nn.ReLU6(inplace=True)
        self.conv_pwl = _conv(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs, eps=_EPS)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        wide = self.act1(self.bn1(self.conv_pw(x)))
        wide = self.act2(self.bn2(self.conv_dw(wide)))
        y: Tensor = self.bn3(self.conv_pwl(wide))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """images float [n, 3, h, w], normalised with mean and std 0.5 -> pooled features [n, 1280]."""

    num_features = 1280

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _conv(3, 32, 3, 2)
        self.bn1 = nn.BatchNorm2d(32, eps=_EPS)
        self.act1 = nn.ReLU6(inplace=True)
        stages, inputs = [], 32
        for kind, repeats, kernel, first_stride, expansion, outputs in _STAGES:
            block = SeparableBlock if kind == "separable" else InvertedResidual
            blocks = []
            for i in range(repeats):
                blocks.append(block(inputs, outputs, kernel, first_stride if i == 0 else 1, expansion))
                inputs = outputs
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _conv(inputs, self.num_features)
        self.bn2 = nn.BatchNorm2d(self.num_features, eps=_EPS)
        self.act2 = nn.ReLU6(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv_stem(images)))
        x = self.blocks(x)
        x = self.act2(self.bn2(self.conv_head(x)))
        return torch.flatten(F.adaptive_avg_pool2d(x, 1), 1)

    def folded(self) -> EfficientNetLite0:
        """A copy for inference: its batch norms, with their running statistics, are part of the convolutions.

        8 to 25 % faster on a CPU in bf16 (docs/measurements.md). Other norms stay as they are.
        """
        twin = copy.deepcopy(self).eval()
        for module in list(twin.modules()):
            for conv_name, norm_name in next(
                (names for kind, names in _FOLDED.items() if isinstance(module, kind)), ()
            ):
                norm = getattr(module, norm_name, None)  # the head may have been taken off
                if isinstance(norm, nn.BatchNorm2d):
                    setattr(module, conv_name, fuse_conv_bn_eval(getattr(module, conv_name), norm))
                    setattr(module, norm_name, nn.Identity())
        return twin


_FOLDED: dict[type[nn.Module], tuple[tuple[str, str], ...]] = {
    EfficientNetLite0: (("conv_stem", "bn1"), ("conv_head", "bn2")),
    SeparableBlock: (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    InvertedResidual: (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}
