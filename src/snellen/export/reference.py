"""What an artifact is held against: the networks in this process, fed by the one warp that training had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.export.faults import Fault, is_one, right
from snellen.export.members import Model, answering_of, graph_answers, members_of
from snellen.export.runtimes import Answers
from snellen.nn.detection.suppression_graph import suppressed
from snellen.nn.folding import for_inference
from snellen.nn.placing import placed


class Reference:
    """``answering`` says what is true of an image; ``answers`` the same as the arrays that a graph gives."""

    def __init__(self, model: Model) -> None:
        self.model, self.task = model, model.task
        self.answering = answering_of(model)
        members = members_of(model)
        self.preprocessings = [member.plan.preprocessing for member in members]
        self.networks = [for_inference(member.network) for member in members]

    def answers(self, image: NDArray[np.uint8], fault: Fault = right) -> Answers:
        """Of one image uint8 [H, W, 3]; with a fault, what a graph would say that commits it."""
        return self.all_answers([image], fault)[0]

    def all_answers(self, images: Sequence[NDArray[np.uint8]], fault: Fault = right) -> list[Answers]:
        import torch

        with torch.inference_mode():
            outputs = []
            for how, network in zip(self.preprocessings, self.networks, strict=True):
                fed = np.stack([fault(image, how) for image in images])
                outputs.append(network(torch.from_numpy(fed).permute(0, 3, 1, 2)))
            told = []
            for i, image in enumerate(images):
                where = [placed(image.shape[1], image.shape[0], how) for how in self.preprocessings]
                said = graph_answers(self.model, [_of_one(each, i) for each in outputs], where, suppressed)
                told.append({name: values.cpu().numpy() for name, values in said.items()})
        return told

    def is_changed_by(self, fault: Fault, image: NDArray[np.uint8]) -> bool:
        """Whether a fault changes what any of the networks is fed."""
        return any(is_one(fault, image, how) for how in self.preprocessings)


def _of_one(outputs: Any, i: int) -> Any:
    """The raw outputs for one image of a batch."""
    return tuple(each[i : i + 1] for each in outputs) if isinstance(outputs, tuple) else outputs[i : i + 1]
