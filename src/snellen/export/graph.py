"""The whole way from pixels to answers as one module: what every format holds."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from snellen.data.warp import FILL
from snellen.export.members import Model, graph_answers, members_of
from snellen.nn.detection.suppression_graph import Suppress, Suppressing
from snellen.nn.folding import for_a_graph
from snellen.nn.placing import Placing, placed


class Graph(nn.Module):
    """image uint8 [n, H, W, 3] (RGB, upright, any size, the n of one size) -> the task's named answers.

    Resize, normalisation, network with its batch norms folded, decoding and suppression; answers are in the pixels of
    the images. ``suppress`` is non-maximum suppression as the runtime has it. Several members have a placing and a
    network each, and their answers are joined as the ensemble joins them.
    """

    def __init__(self, model: Model, suppress: Suppress) -> None:
        super().__init__()
        members = members_of(model)
        self.placings = nn.ModuleList(Placing(member.plan.preprocessing, FILL) for member in members)
        self.networks = nn.ModuleList(for_a_graph(member.network) for member in members)
        for part in self.networks.modules():
            if isinstance(part, Suppressing):
                part.suppress = suppress
        self._preprocessings = [member.plan.preprocessing for member in members]
        self._model, self._suppress = model, suppress

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        pairs = zip(self.placings, self.networks, strict=True)
        outputs: list[Any] = [network(placing(image)) for placing, network in pairs]
        where = [placed(image.shape[2], image.shape[1], how) for how in self._preprocessings]
        return graph_answers(self._model, outputs, where, self._suppress)
