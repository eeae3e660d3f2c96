"""Object detection: every object of the known classes, each as a box with a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.geometry import Size, clip_boxes, invert, map_boxes
from snellen.core.record import Record
from snellen.data.elastic import ElasticField
from snellen.data.tiles import Region
from snellen.metrics.coco_ap import match_images
from snellen.metrics.detection_errors import detection_errors
from snellen.metrics.operating_point import best_threshold
from snellen.nn.detection.loss_names import BOXES, SCORES, USUAL_LOSS, chosen_losses
from snellen.nn.detection.table import ARCHITECTURES
from snellen.tasks.base import Task
from snellen.tasks.detection.metrics import DetectionMetrics, paired
from snellen.tasks.detection.sightings import merged
from snellen.tasks.detection.target import Boxes

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Batch, Frame
    from snellen.draw.chart import Chart
    from snellen.nn.catalog import Provenance
    from snellen.nn.detection.truth import Truth

USUAL_THRESHOLD = 0.3  # of the score, until validation has shown which one serves best
_FLOOR = 0.01  # scores below it are never looked at: precision over recall is known well enough above
_ENOUGH = 10  # objects of a class on validation, to choose its threshold by
_MOST = 300  # objects found in an image


class Detection(Task[Boxes]):
    """Boxes; the loss is the network's own.

    ``decision`` is, for each class, the score from which a box is shown; metrics look at all boxes.
    """

    name = "detection"
    headline = "map"
    loss_names = (USUAL_LOSS, *SCORES, *BOXES)
    dense = True
    architectures = tuple(ARCHITECTURES)
    settings = frozenset({"mosaic", "nms", "nms_iou", "loss_weights"})
    tile_merges = ("iou", "smaller")
    tiles_and_whole = True
    trivial_answer = "nothing"

    _nms: tuple[Any, float] = ("per class", 0.6)

    def configured(self, plan: Plan) -> Detection:
        thins_out = ARCHITECTURES[plan.architecture or "dense"].needs_nms
        self._nms = (plan.nms if thins_out else "none", plan.nms_iou)
        return self

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self.decision or (USUAL_THRESHOLD,) * len(self.classes)

    # --- data

    def target(self, record: Record) -> Boxes:
        return Boxes.of(record, self.classes)

    def warp(self, target: Boxes, matrix: np.ndarray, size: Size, field: ElasticField | None = None) -> Boxes:
        return target.moved(matrix, size, field)

    def nothing(self, like: Boxes) -> Boxes:
        return like.chosen(np.zeros(len(like), np.bool_))

    def overlay(self, own: Boxes, other: Boxes, region: tuple[int, int, int, int]) -> Boxes:
        return own.covered(region).joined(other.within(region))

    def num_objects(self, target: Boxes) -> int:
        return len(target)

    # --- learning

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.detection.architectures import create_detector

        return create_detector(plan, len(self.classes))

    def load_weights(self, model: nn.Module, plan: Plan) -> Provenance:
        from snellen.nn.feature_maps import load_pretrained_maps

        backbone: Any = model.get_submodule("backbone")
        return load_pretrained_maps(backbone, plan.model, file=plan.weights, pretrained=plan.pretrained)

    def criterion(self, outputs: Any, batch: Batch[Boxes], plan: Plan) -> dict[str, Tensor]:
        raise TypeError("a detector computes its losses from images, not from what it has found in them")

    def check_loss(self, loss: str) -> None:
        chosen_losses(loss)

    def losses(self, model: nn.Module, batch: Batch[Boxes], plan: Plan) -> dict[str, Tensor]:
        found: dict[str, Tensor] = model.losses(batch.images, _truths(batch))  # type: ignore[operator]
        return found

    def assess(self, model: nn.Module, batch: Batch[Boxes], plan: Plan) -> tuple[dict[str, Tensor], Sequence[Boxes]]:
        losses, candidates = model.assess(batch.images, _truths(batch))  # type: ignore[operator]
        return losses, self.decode(candidates, batch.frames)

    # --- results

    def decode(self, outputs: Tensor, frames: Sequence[Frame] = ()) -> list[Boxes]:
        from snellen.nn.detection.nms import select

        kind, iou = self._nms
        found = []
        for i, candidates in enumerate(outputs):
            chosen = select(candidates, threshold=_FLOOR, iou=iou, kind=kind, most=_MOST)
            boxes = chosen.boxes.cpu().numpy().astype(np.float64)
            size = (0, 0)
            if frames:
                size = frames[i].size
                boxes, _ = clip_boxes(map_boxes(invert(frames[i].matrix), boxes), size)
            labels, scores = chosen.labels.cpu().numpy(), chosen.scores.cpu().numpy().astype(np.float32)
            seen = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) > 0
            found.append(Boxes.predicted(size, boxes[seen].astype(np.float32), labels[seen], scores[seen]))
        return found

    def metrics(self) -> DetectionMetrics:
        return DetectionMetrics(self.classes)

    def majority(self, train: Sequence[Boxes], num: int) -> list[Boxes]:
        return [Boxes.empty((0, 0))] * num

    def fit_decision(self, predicted: Sequence[Boxes], truth: Sequence[Boxes]) -> tuple[tuple[float, ...], str]:
        """For each class the threshold with the highest F1; the usual one where validation has too few to tell."""
        matches = match_images(paired(predicted, truth), len(self.classes))
        counts = matches.true[0].sum(axis=0)
        thresholds = tuple(
            best_threshold(matches, label) if counts[label] >= _ENOUGH else USUAL_THRESHOLD
            for label in range(len(self.classes))
        )
        told = ", ".join(f"{name} {at:.2f}" for name, at in list(zip(self.classes, thresholds, strict=True))[:5])
        more = ", ..." if len(self.classes) > 5 else ""
        return thresholds, f"Boxes are shown from the score that is best on validation (F1 at IoU 0.5): {told}{more}"

    def mistakes(self, predicted: Sequence[Boxes], truth: Sequence[Boxes], limit: int) -> list[dict[str, Any]]:
        """The images with most objects missed or wrongly found, at the thresholds. ``off`` is how many."""
        shown = [each.above(self.thresholds) for each in predicted]
        faults = Counter(fault.image for fault in detection_errors(paired(shown, truth), len(self.classes)).faults)
        worst = sorted(faults, key=lambda i: (-faults[i], i))
        return [
            {
                "index": i,
                "truth": self.caption(truth[i]),
                "predicted": self.caption(shown[i]),
                "off": faults[i],
                "unit": "wrong or missed",
            }
            for i in worst[:limit]
        ]

    def arrays(self, predicted: Sequence[Boxes], truth: Sequence[Boxes]) -> dict[str, np.ndarray]:
        """Flat: row k of ``truth_*``, and of ``predicted_*``, is of image ``*_image[k]``; ``size`` is [n, 2], and
        ``thresholds`` [C]."""
        size = np.array([each.size for each in truth], np.int64).reshape(-1, 2)
        shown_from = np.array(self.thresholds, np.float32)
        return {"size": size, "thresholds": shown_from, **_flat("truth", truth), **_flat("predicted", predicted)}

    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[Sequence[Boxes], Sequence[Boxes]]:
        return _unflat("predicted", arrays), _unflat("truth", arrays)

    def combine(self, outputs: Sequence[Tensor]) -> Tensor:
        """The candidates of all models, of which overlapping ones are thinned out as those of one."""
        import torch

        return torch.cat(list(outputs), 1)

    def merge(self, parts: Sequence[Boxes], regions: Sequence[Region], size: Size, way: str) -> Boxes:
        return merged(parts, regions, size, by=way, agnostic=self._nms[0] == "agnostic")

    def describe(self, predicted: Boxes) -> dict[str, Any]:
        shown = predicted.above(self.thresholds)
        scores = np.ones(len(shown), np.float32) if shown.scores is None else shown.scores
        objects = [
            {"label": self.classes[label], "confidence": float(score), "box": [round(float(x), 2) for x in box]}
            for label, score, box in zip(shown.labels, scores, shown.boxes, strict=True)
        ]
        return {"objects": objects, "size": list(predicted.size), "text": self.caption(predicted)}

    def caption(self, target: Boxes) -> str:
        """``3 RBC, 1 WBC``"""
        counts = Counter(target.above(self.thresholds).labels.tolist())
        return ", ".join(f"{counts[i]} {self.classes[i]}" for i in sorted(counts)) or "nothing"

    def draw(self, image: np.ndarray, target: Boxes) -> Image.Image:
        from snellen.draw.boxes import draw_boxes

        shown = target.above(self.thresholds)
        names = [self.classes[label] for label in shown.labels]
        if shown.scores is not None:
            names = [f"{name} {score:.2f}" for name, score in zip(names, shown.scores, strict=True)]
        width, height = target.size
        scale = np.array([image.shape[1] / max(1, width), image.shape[0] / max(1, height)] * 2)
        return draw_boxes(image, shown.boxes * scale, names, shown.labels.tolist())

    def draw_mistake(self, image: np.ndarray, truth: Boxes, predicted: Boxes) -> Image.Image:
        from snellen.draw.boxes import beside

        said = self.draw(image, replace(predicted, size=truth.size))
        return beside(self.draw(image, truth), said, ("truth", "prediction"))

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        from snellen.tasks.object_charts import charts

        predicted, truth = self.read_arrays(arrays)
        return charts(paired(predicted, truth), self.classes, arrays["thresholds"].tolist())


def _truths(batch: Batch[Boxes]) -> list[Truth]:
    """What the network learns from; a blend of two images shows the objects of both (Zhang et al. 2019,
    arXiv:1902.04103)."""
    import torch

    from snellen.nn.detection.truth import Truth

    targets = batch.targets
    if batch.mixed is not None:
        targets = [own.joined(other) for own, other in zip(targets, batch.mixed.partners, strict=True)]
    device = batch.images.device
    return [
        Truth(
            boxes=torch.from_numpy(each.boxes).to(device),
            labels=torch.from_numpy(each.labels).to(device),
            crowd=torch.from_numpy(each.crowd).to(device),
        )
        for each in targets
    ]


_FIELDS = ("boxes", "labels", "scores", "crowd", "difficult", "area")


def _flat(name: str, targets: Sequence[Boxes]) -> dict[str, np.ndarray]:
    image = np.repeat(np.arange(len(targets)), [len(each) for each in targets])
    empty = Boxes.empty((0, 0))
    flat = {f"{name}_image": image.astype(np.int64)}
    for field in _FIELDS:
        parts = [getattr(each, field) for each in targets]
        if all(part is not None for part in parts):
            flat[f"{name}_{field}"] = np.concatenate([getattr(empty, field), *parts])
    return flat


def _unflat(name: str, arrays: Mapping[str, np.ndarray]) -> list[Boxes]:
    image, sizes = arrays[f"{name}_image"], arrays["size"]
    ends = np.searchsorted(image, np.arange(len(sizes) + 1))
    found = []
    for i, (width, height) in enumerate(sizes.tolist()):
        rows = slice(ends[i], ends[i + 1])
        fields: Any = {f: arrays[f"{name}_{f}"][rows] if f"{name}_{f}" in arrays else None for f in _FIELDS}
        found.append(Boxes(size=(width, height), **fields))
    return found
