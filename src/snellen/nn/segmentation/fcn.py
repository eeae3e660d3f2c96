"""FCN-8s: scores of each class at three resolutions, summed from the coarsest up.

Long et al. 2015 (arXiv:1411.4038). Their convolutions of 4096 channels stand for the classifier of a VGG-16; a backbone
of today ends in maps that a linear layer was trained on, and is scored as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from snellen.nn.segmentation.segmenter import resized

_NUM_SCORED = 3  # of the coarsest maps: 1/8, 1/16 and 1/32 of most backbones


class FCNHead(nn.Module):
    """maps [n, channels[i], h_i, w_i], the finest first -> logits [n, num_classes, h, w] of the third coarsest."""

    def __init__(self, channels: Sequence[int], num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.scores = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in channels[-_NUM_SCORED:])
        for score in self.scores[:-1]:  # finer maps begin by saying nothing, as in the paper
            assert isinstance(score, nn.Conv2d) and score.bias is not None
            nn.init.zeros_(score.weight)
            nn.init.zeros_(score.bias)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        scored = list(zip(self.scores, maps[-len(self.scores) :], strict=True))
        score, coarsest = scored[-1]
        logits: Tensor = score(self.dropout(coarsest))
        for score, finer in reversed(scored[:-1]):
            logits = resized(logits, finer) + score(finer)
        return logits
