"""What an artifact is held against: the network in this process, fed by the one warp that training had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.export.faults import Fault, right
from snellen.export.runtimes import Answers
from snellen.nn.detection.suppression_graph import suppressed
from snellen.nn.placing import placed
from snellen.predict.answering import NetworkAnswering
from snellen.tasks.loading import LoadedModel


class Reference:
    """``answering`` says what is true of an image; ``answers`` the same as the arrays that a graph gives."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model
        self.answering = NetworkAnswering(model)

    def answers(self, image: NDArray[np.uint8], fault: Fault = right) -> Answers:
        """Of one image uint8 [H, W, 3]; with a fault, what a graph would say that commits it."""
        return self.all_answers([image], fault)[0]

    def all_answers(self, images: Sequence[NDArray[np.uint8]], fault: Fault = right) -> list[Answers]:
        import torch

        how = self.model.plan.preprocessing
        fed = torch.from_numpy(np.stack([fault(image, how) for image in images])).permute(0, 3, 1, 2)
        with torch.inference_mode():
            outputs = self.answering.network(fed)
            told = []
            for i, image in enumerate(images):
                where = placed(image.shape[1], image.shape[0], how)
                said = self.model.task.graph_answers(_of_one(outputs, i), where, suppressed)
                told.append({name: values.cpu().numpy() for name, values in said.items()})
        return told


def _of_one(outputs: Any, i: int) -> Any:
    """The raw outputs for one image of a batch."""
    return tuple(each[i : i + 1] for each in outputs) if isinstance(outputs, tuple) else outputs[i : i + 1]
