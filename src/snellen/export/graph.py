"""The whole way from pixels to answers as one module: what every format holds."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from snellen.data.warp import FILL
from snellen.nn.detection.suppression_graph import Suppress
from snellen.nn.folding import for_a_graph
from snellen.nn.placing import Placing, placed
from snellen.tasks.loading import LoadedModel


class Graph(nn.Module):
    """image uint8 [n, H, W, 3] (RGB, upright, any size, the n of one size) -> the task's named answers.

    Resize, normalisation, network with its batch norms folded, decoding and suppression; answers are in the pixels of
    the images. ``suppress`` is non-maximum suppression as the runtime has it.
    """

    def __init__(self, model: LoadedModel, suppress: Suppress) -> None:
        super().__init__()
        self.preprocessing = model.plan.preprocessing
        self.placing = Placing(self.preprocessing, FILL)
        self.network = for_a_graph(model.network)
        self._task, self._suppress = model.task, suppress

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        outputs: Any = self.network(self.placing(image))
        where = placed(image.shape[2], image.shape[1], self.preprocessing)
        return self._task.graph_answers(outputs, where, self._suppress)
