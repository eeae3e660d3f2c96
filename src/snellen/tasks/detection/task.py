"""Object detection: every object of the known classes, each as a box with a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from snellen.core.geometry import clip_boxes, invert, map_boxes
from snellen.nn.detection.table import ARCHITECTURES
from snellen.tasks.detection.metrics import DetectionMetrics
from snellen.tasks.detection.target import Boxes
from snellen.tasks.objects.fusion import Fused, Sightings
from snellen.tasks.objects.task import ObjectTask

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Frame
    from snellen.nn.detection.suppression_graph import Suppress
    from snellen.nn.placing import Placed

_FLOOR = 0.01  # scores below it are never looked at: precision over recall is known well enough above


class Detection(ObjectTask[Boxes]):
    """Boxes: see ``ObjectTask``."""

    name = "detection"
    headline = "map"
    kind = Boxes
    answers = "Boxes"
    most = 300
    fused_in_graphs = True
    architectures = tuple(ARCHITECTURES)

    def configured(self, plan: Plan) -> Detection:
        thins_out = ARCHITECTURES[plan.architecture or "dense"].needs_nms
        self._nms = (plan.nms if thins_out else "none", plan.nms_iou)
        return self

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.detection.architectures import create_detector

        return create_detector(plan, len(self.classes))

    def decode(self, outputs: Tensor, frames: Sequence[Frame] = ()) -> list[Boxes]:
        from snellen.nn.detection.nms import select

        kind, iou = self._nms
        found = []
        for i, candidates in enumerate(outputs):
            chosen = select(candidates, threshold=_FLOOR, iou=iou, kind=kind, most=self.most)
            boxes = chosen.boxes.cpu().numpy().astype(np.float64)
            size = (0, 0)
            if frames:
                size = frames[i].size
                boxes, _ = clip_boxes(map_boxes(invert(frames[i].matrix), boxes), size)
            labels, scores = chosen.labels.cpu().numpy(), chosen.scores.cpu().numpy().astype(np.float32)
            seen = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) > 0
            found.append(Boxes.predicted(size, boxes[seen].astype(np.float32), labels[seen], scores[seen]))
        return found

    def graph_answers(self, outputs: Tensor, placed: Placed, suppress: Suppress) -> dict[str, Tensor]:
        """Of the m objects of all images, image by image and the best first: ``boxes`` float32 [m, 4] in pixels of the
        images, ``scores`` float32 [m], ``labels`` int64 [m], ``image_index`` int64 [m]."""
        from snellen.nn.detection.suppression_graph import choose, objects_in

        kind, iou = self._nms
        chosen = choose(outputs, threshold=_FLOOR, iou=iou, kind=kind, most=self.most, suppress=suppress)
        return objects_in(chosen, placed)[0]

    def from_graph(self, answers: Mapping[str, np.ndarray], frames: Sequence[Frame]) -> list[Boxes]:
        of = [answers["image_index"] == i for i in range(len(frames))]
        return [
            Boxes.predicted(frame.size, *(answers[name][own] for name in ("boxes", "labels", "scores")))
            for own, frame in zip(of, frames, strict=True)
        ]

    def fused_of(self, found: Sequence[Boxes], seen: Sightings, fused: Fused) -> Boxes:
        return Boxes.predicted(found[0].size, fused.boxes, fused.labels, fused.scores)

    def metrics(self) -> DetectionMetrics:
        return DetectionMetrics(self.classes)

    def draw_objects(self, image: np.ndarray, shown: Boxes, names: Sequence[str], scale: np.ndarray) -> Image.Image:
        from snellen.draw.boxes import draw_boxes

        return draw_boxes(image, shown.boxes * scale, names, shown.labels.tolist())
