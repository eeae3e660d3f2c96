"""What every task about objects does alike: from the truth of a record to the pictures of the results."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from snellen.core.geometry import Size
from snellen.core.record import Record
from snellen.data.elastic import ElasticField
from snellen.data.tiles import Region
from snellen.metrics.coco_ap import match_images
from snellen.metrics.detection_errors import detection_errors
from snellen.metrics.operating_point import best_threshold
from snellen.nn.detection.loss_names import BOXES, SCORES, USUAL_LOSS, chosen_losses
from snellen.tasks.base import Difference, Task, shares_of
from snellen.tasks.objects.arrays import flat, unflat
from snellen.tasks.objects.counterparts import counterparts
from snellen.tasks.objects.fusion import SAME_OBJECT, Fused, Sightings, fuse
from snellen.tasks.objects.metrics import Judged
from snellen.tasks.objects.target import ObjectsT

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Batch, Frame
    from snellen.draw.chart import Chart
    from snellen.nn.catalog import Provenance
    from snellen.nn.detection.truth import Truth

USUAL_THRESHOLD = 0.3  # of the score, until validation has shown which one serves best
# Of IoU. On 87 images of blood cells, suppressed at 0.60, two views fused at 0.65 have a mAP of 0.361 (0.362 at 0.70,
# 0.332 at 0.60), but 0.293 at the paper's 0.55, and one view has 0.337. Drawn boxes: 0.893 to 0.912 from 0.40 to 0.70.
_APART = 0.05
_SHIFTED = 0.5  # IoU from which two boxes are of the same object, a little elsewhere
_TIE = 1e-4  # of a score: more than two runtimes differ by
_ENOUGH = 10  # objects of a class on validation, to choose its threshold by


class ObjectTask(Task[ObjectsT]):
    """Objects with scores; the loss is the network's own.

    ``decision`` is, for each class, the score from which an object is shown; metrics look at all objects.

    kind     the type of the targets
    answers  what is found, in the plural, where a sentence begins with it
    most     objects found in an image
    fused_in_graphs  whether a graph joins what several models have found: boxes, but not masks, which are voted about
                     in the pixels of each image
    """

    kind: type[ObjectsT]
    answers: ClassVar[str] = "Objects"
    most: ClassVar[int]
    fused_in_graphs: ClassVar[bool] = False
    loss_names = (USUAL_LOSS, *SCORES, *BOXES)
    dense = True
    settings = frozenset({"mosaic", "nms", "nms_iou", "loss_weights"})
    tile_merges = ("iou", "smaller")
    tiles_and_whole = True
    trivial_answer = "nothing"

    _nms: tuple[Any, float] = ("per class", 0.6)

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self.decision or (USUAL_THRESHOLD,) * len(self.classes)

    # --- data

    def target(self, record: Record) -> ObjectsT:
        return self.kind.of(record, self.classes)

    def warp(self, target: ObjectsT, matrix: np.ndarray, size: Size, field: ElasticField | None = None) -> ObjectsT:
        return target.moved(matrix, size, field)

    def nothing(self, like: ObjectsT) -> ObjectsT:
        return like.chosen(np.zeros(len(like), np.bool_))

    def overlay(self, own: ObjectsT, other: ObjectsT, region: Region) -> ObjectsT:
        return own.covered(region).joined(other.within(region))

    def num_objects(self, target: ObjectsT) -> int:
        return len(target)

    # --- learning

    def load_weights(self, model: nn.Module, plan: Plan) -> Provenance:
        from snellen.nn.detection.architectures import load_detector

        return load_detector(model, plan, self.classes)

    def criterion(self, outputs: Any, batch: Batch[ObjectsT], plan: Plan) -> dict[str, Tensor]:
        raise TypeError("a detector computes its losses from images, not from what it has found in them")

    def check_loss(self, loss: str) -> None:
        chosen_losses(loss)

    def losses(self, model: nn.Module, batch: Batch[ObjectsT], plan: Plan) -> dict[str, Tensor]:
        found: dict[str, Tensor] = model.losses(batch.images, self._truths(batch))  # type: ignore[operator]
        return found

    def assess(
        self, model: nn.Module, batch: Batch[ObjectsT], plan: Plan
    ) -> tuple[dict[str, Tensor], Sequence[ObjectsT]]:
        losses, outputs = model.assess(batch.images, self._truths(batch))  # type: ignore[operator]
        return losses, self.decode(outputs, batch.frames)

    def truth(self, target: ObjectsT) -> Truth:
        """What the network learns from, of one image."""
        import torch

        from snellen.nn.detection.truth import Truth

        return Truth(
            boxes=torch.from_numpy(target.boxes),
            labels=torch.from_numpy(target.labels),
            crowd=torch.from_numpy(target.crowd),
        )

    def _truths(self, batch: Batch[ObjectsT]) -> list[Truth]:
        """Of a batch; a blend of two images shows the objects of both (Zhang et al. 2019, arXiv:1902.04103)."""
        targets = batch.targets
        if batch.mixed is not None:
            targets = [own.joined(other) for own, other in zip(targets, batch.mixed.partners, strict=True)]
        return [self.truth(each).to(batch.images.device) for each in targets]

    # --- results

    def in_order(self, outputs: Any, order: Sequence[int]) -> Any:
        candidates, *rest = outputs if isinstance(outputs, tuple) else (outputs,)
        columns = list(range(candidates.shape[-1]))
        columns[4 : 4 + len(order)] = [4 + place for place in order]
        moved = candidates[..., columns]
        return (moved, *rest) if rest else moved

    def decode_together(
        self, outputs: Sequence[Any], frames: Sequence[Sequence[Frame]] = (), weights: Sequence[float] = ()
    ) -> Sequence[ObjectsT]:
        """What ``decode`` says of each of the outputs, fused image by image."""
        found = [self.decode(each, frames[k] if frames else ()) for k, each in enumerate(outputs)]
        return self.fused(found, weights)

    def fused(self, found: Sequence[Sequence[ObjectsT]], weights: Sequence[float] = ()) -> Sequence[ObjectsT]:
        """What several models or views have found in the same n images, told in their pixels, as one prediction each:
        see ``fusion.fuse``. ValueError as ``shares_of``."""
        shares = shares_of(weights, len(found))
        counted = [(each, share) for each, share in zip(found, shares, strict=True) if share > 0]
        if len(counted) == 1:
            return counted[0][0]
        images = []
        for each in zip(*(predictions for predictions, _ in counted), strict=True):
            seen = Sightings.of(each, [share for _, share in counted])
            images.append(self.fused_of(each, seen, fuse(seen, **self._fusion)))
        return images

    @property
    def _fusion(self) -> dict[str, Any]:
        """How ``fuse`` is to be asked."""
        kind, iou = self._nms
        # What suppression let stand beside each other in one view are two objects in all of them. The mean of their
        # boxes wanders, so a little more is asked; at less, weak boxes beside an object drag its score down.
        same = max(iou + _APART, SAME_OBJECT) if kind in ("per class", "agnostic") else SAME_OBJECT
        return {"iou": same, "agnostic": kind == "agnostic", "most": self.most}

    def graph_fused(
        self, found: Sequence[dict[str, Tensor]], num_images: int, weights: Sequence[float] = ()
    ) -> dict[str, Tensor]:
        """As ``fused``, of what ``graph_answers`` told of the same images; where ``fused_in_graphs``."""
        from snellen.nn.detection.fusion_graph import fused_together

        shares = shares_of(weights, len(found))
        counted = [(each, share) for each, share in zip(found, shares, strict=True) if share > 0]
        if len(counted) == 1:
            return counted[0][0]
        return fused_together(*zip(*counted, strict=True), num_images=num_images, **self._fusion)

    @abstractmethod
    def fused_of(self, found: Sequence[ObjectsT], seen: Sightings, fused: Fused) -> ObjectsT:
        """The prediction for an image, from those of which ``seen`` is made and from what was fused of them."""

    def majority(self, train: Sequence[ObjectsT], num: int) -> list[ObjectsT]:
        return [self.kind.empty((0, 0))] * num

    def fit_decision(self, predicted: Sequence[ObjectsT], truth: Sequence[ObjectsT]) -> tuple[tuple[float, ...], str]:
        """For each class the threshold with the highest F1; the usual one where validation has too few to tell."""
        matches = match_images(Judged(predicted, truth), len(self.classes))
        counts = matches.true[0].sum(axis=0)
        thresholds = tuple(
            best_threshold(matches, label) if counts[label] >= _ENOUGH else USUAL_THRESHOLD
            for label in range(len(self.classes))
        )
        told = ", ".join(f"{name} {at:.2f}" for name, at in list(zip(self.classes, thresholds, strict=True))[:5])
        more = ", ..." if len(self.classes) > 5 else ""
        shown = f"{self.answers} are shown from the score that is best on validation (F1 at IoU 0.5)"
        return thresholds, f"{shown}: {told}{more}"

    def mistakes(self, predicted: Sequence[ObjectsT], truth: Sequence[ObjectsT], limit: int) -> list[dict[str, Any]]:
        """The images with most objects missed or wrongly found, at the thresholds. ``off`` is how many."""
        shown = [each.above(self.thresholds) for each in predicted]
        faults = Counter(fault.image for fault in detection_errors(Judged(shown, truth), len(self.classes)).faults)
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

    def arrays(self, predicted: Sequence[ObjectsT], truth: Sequence[ObjectsT]) -> dict[str, np.ndarray]:
        """``truth_*`` and ``predicted_*``: see ``arrays.flat``; ``size`` is [n, 2], and ``thresholds`` [C]."""
        size = np.array([each.size for each in truth], np.int64).reshape(-1, 2)
        shown_from = np.array(self.thresholds, np.float32)
        return {
            "size": size,
            "thresholds": shown_from,
            **self.flat("truth", truth),
            **self.flat("predicted", predicted),
        }

    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[Sequence[ObjectsT], Sequence[ObjectsT]]:
        return self.unflat("predicted", arrays), self.unflat("truth", arrays)

    def flat(self, name: str, targets: Sequence[ObjectsT]) -> dict[str, np.ndarray]:
        """One side of ``arrays``."""
        return flat(name, targets)

    def unflat(self, name: str, arrays: Mapping[str, np.ndarray]) -> list[ObjectsT]:
        """The targets back from what ``flat`` made, and ``size``. Raises KeyError."""
        return [self.kind(**fields) for fields in unflat(name, arrays)]

    def merge(self, parts: Sequence[ObjectsT], regions: Sequence[Region], size: Size, way: str) -> ObjectsT:
        return self.kind.merged(parts, regions, size, by=way, agnostic=self._nms[0] == "agnostic")

    def difference(self, one: ObjectsT, other: ObjectsT) -> Difference:
        """Of the objects that are shown; see ``counterparts`` for which are the same. One at its threshold, to 1e-4,
        may be shown or not. Those that overlap by half are only shifted."""
        shown, again = one.above(self.thresholds), other.above(self.thresholds)
        pairs = counterparts(shown, again)
        apart = 0.0
        if shown.scores is not None and again.scores is not None and len(pairs):
            apart = float(np.abs(shown.scores[pairs[:, 0]] - again.scores[pairs[:, 1]]).max())
        alone = self._clear(shown, pairs[:, 0]) + self._clear(again, pairs[:, 1])
        near = counterparts(shown, again, overlap=_SHIFTED, score=1.0)
        plainly = self._clear(shown, near[:, 0]) + self._clear(again, near[:, 1])
        return Difference(max(len(shown) + len(again) - len(pairs), 1), alone, apart, max(alone - plainly, 0))

    def _clear(self, shown: ObjectsT, paired: np.ndarray) -> int:
        """How many of the objects that have no counterpart are clearly above their threshold."""
        scores = np.ones(len(shown)) if shown.scores is None else shown.scores
        clear = scores > np.asarray(self.thresholds)[shown.labels] + _TIE
        return int(np.delete(clear, paired).sum())

    def describe(self, predicted: ObjectsT) -> dict[str, Any]:
        shown = predicted.above(self.thresholds)
        scores = np.ones(len(shown), np.float32) if shown.scores is None else shown.scores
        objects = [
            {"label": self.classes[label], "confidence": float(score), "box": [round(float(x), 2) for x in box]}
            for label, score, box in zip(shown.labels, scores, shown.boxes, strict=True)
        ]
        return {"objects": objects, "size": list(predicted.size), "text": self.caption(predicted)}

    def caption(self, target: ObjectsT) -> str:
        """``3 RBC, 1 WBC``"""
        counts = Counter(target.above(self.thresholds).labels.tolist())
        return ", ".join(f"{counts[i]} {self.classes[i]}" for i in sorted(counts)) or "nothing"

    def draw(self, image: np.ndarray, target: ObjectsT) -> Image.Image:
        shown = target.above(self.thresholds)
        names = [self.classes[label] for label in shown.labels]
        if shown.scores is not None:
            names = [f"{name} {score:.2f}" for name, score in zip(names, shown.scores, strict=True)]
        width, height = target.size
        scale = np.array([image.shape[1] / max(1, width), image.shape[0] / max(1, height)] * 2)
        return self.draw_objects(image, shown, names, scale)

    @abstractmethod
    def draw_objects(self, image: np.ndarray, shown: ObjectsT, names: Sequence[str], scale: np.ndarray) -> Image.Image:
        """The image with all of ``shown`` and their names on it; ``scale`` [4] turns their boxes into its pixels."""

    def draw_mistake(self, image: np.ndarray, truth: ObjectsT, predicted: ObjectsT) -> Image.Image:
        from snellen.draw.boxes import beside

        said = self.draw(image, replace(predicted, size=truth.size))
        return beside(self.draw(image, truth), said, ("truth", "prediction"))

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        from snellen.tasks.objects.charts import charts

        return charts(Judged(*self.read_arrays(arrays)), self.classes, arrays["thresholds"].tolist())
