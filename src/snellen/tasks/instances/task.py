"""Instance segmentation: every object of the known classes, each as the pixels that show it, with a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.geometry import Size, identity
from snellen.core.masks import Mask, runs_to_text
from snellen.core.record import Record
from snellen.core.sample import Frame
from snellen.data.elastic import ElasticField
from snellen.metrics.coco_ap import match_images
from snellen.metrics.detection_errors import detection_errors
from snellen.metrics.operating_point import best_threshold
from snellen.nn.detection.loss_names import BOXES, SCORES, USUAL_LOSS, chosen_losses
from snellen.tasks.base import Task
from snellen.tasks.instances.arrays import flat, unflat
from snellen.tasks.instances.finding import find, merged
from snellen.tasks.instances.metrics import InstanceMetrics, Judged
from snellen.tasks.instances.target import InstanceSet

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Batch
    from snellen.draw.chart import Chart
    from snellen.nn.catalog import Provenance
    from snellen.nn.detection.truth import Truth

USUAL_THRESHOLD = 0.3  # of the score, until validation has shown which one serves best
_ENOUGH = 10  # objects of a class on validation, to choose its threshold by
_MASK_STRIDE = 4  # pixels of the input to a cell of a prototype, where no plan tells the input's size


class Instances(Task[InstanceSet]):
    """Masks with boxes; the loss is the network's own.

    ``decision`` is, for each class, the score from which an object is shown; metrics look at all objects.
    """

    name = "instances"
    headline = "mask_map"
    loss_names = (USUAL_LOSS, *SCORES, *BOXES)
    dense = True
    architectures = ("dense", "mask-rcnn")
    settings = frozenset({"mosaic", "copy_paste", "nms", "nms_iou", "loss_weights"})
    trivial_answer = "nothing"

    _nms: tuple[Any, float] = ("per class", 0.6)
    _input_size: Size | None = None

    def configured(self, plan: Plan) -> Instances:
        self._nms = (plan.nms, plan.nms_iou)
        self._input_size = plan.preprocessing.input_size
        return self

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self.decision or (USUAL_THRESHOLD,) * len(self.classes)

    # --- data

    def target(self, record: Record) -> InstanceSet:
        return InstanceSet.of(record, self.classes)

    def warp(
        self, target: InstanceSet, matrix: np.ndarray, size: Size, field: ElasticField | None = None
    ) -> InstanceSet:
        return target.moved(matrix, size, field)

    def nothing(self, like: InstanceSet) -> InstanceSet:
        return like.chosen(np.zeros(len(like), np.bool_))

    def overlay(self, own: InstanceSet, other: InstanceSet, region: tuple[int, int, int, int]) -> InstanceSet:
        return own.covered(region).joined(other.within(region))

    def paste(self, own: InstanceSet, other: InstanceSet, rng: np.random.Generator) -> tuple[InstanceSet, Mask]:
        """Some of the ``other`` objects, no crowds, in front of one's own; and bool [H, W], the pixels they bring."""
        objects = np.flatnonzero(~other.crowd)
        count = int(rng.integers(1, len(objects) + 1)) if len(objects) else 0
        pasted = other.chosen(np.sort(rng.permutation(objects)[:count]))
        pixels = pasted.pixels()
        return own.behind(pixels).joined(pasted), pixels

    def num_objects(self, target: InstanceSet) -> int:
        return len(target)

    # --- learning

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.detection.mask_architectures import create_instance_detector

        return create_instance_detector(plan, len(self.classes))

    def load_weights(self, model: nn.Module, plan: Plan) -> Provenance:
        from snellen.nn.feature_maps import load_pretrained_maps

        backbone: Any = model.get_submodule("backbone")
        return load_pretrained_maps(backbone, plan.model, file=plan.weights, pretrained=plan.pretrained)

    def criterion(self, outputs: Any, batch: Batch[InstanceSet], plan: Plan) -> dict[str, Tensor]:
        raise TypeError("a detector computes its losses from images, not from what it has found in them")

    def check_loss(self, loss: str) -> None:
        chosen_losses(loss)

    def losses(self, model: nn.Module, batch: Batch[InstanceSet], plan: Plan) -> dict[str, Tensor]:
        found: dict[str, Tensor] = model.losses(batch.images, _truths(batch))  # type: ignore[operator]
        return found

    def assess(
        self, model: nn.Module, batch: Batch[InstanceSet], plan: Plan
    ) -> tuple[dict[str, Tensor], Sequence[InstanceSet]]:
        losses, outputs = model.assess(batch.images, _truths(batch))  # type: ignore[operator]
        return losses, self.decode(outputs, batch.frames)

    # --- results

    def decode(self, outputs: tuple[Tensor, Tensor], frames: Sequence[Frame] = ()) -> list[InstanceSet]:
        """``outputs``: candidates [n, m, 4 + C + K] and prototypes [n, K, h', w']."""
        candidates, prototypes = outputs
        height, width = prototypes.shape[2:]
        size = self._input_size or (_MASK_STRIDE * width, _MASK_STRIDE * height)
        kind, iou = self._nms
        return [
            find(
                candidates[i],
                prototypes[i],
                len(self.classes),
                frames[i] if frames else Frame(size=size, matrix=identity(), input_size=size),
                kind=kind,
                iou=iou,
            )
            for i in range(len(candidates))
        ]

    def metrics(self) -> InstanceMetrics:
        return InstanceMetrics(self.classes)

    def majority(self, train: Sequence[InstanceSet], num: int) -> list[InstanceSet]:
        return [InstanceSet.empty((0, 0))] * num

    def fit_decision(
        self, predicted: Sequence[InstanceSet], truth: Sequence[InstanceSet]
    ) -> tuple[tuple[float, ...], str]:
        """For each class the threshold with the highest F1; the usual one where validation has too few to tell."""
        matches = match_images(Judged(predicted, truth), len(self.classes))
        counts = matches.true[0].sum(axis=0)
        thresholds = tuple(
            best_threshold(matches, label) if counts[label] >= _ENOUGH else USUAL_THRESHOLD
            for label in range(len(self.classes))
        )
        told = ", ".join(f"{name} {at:.2f}" for name, at in list(zip(self.classes, thresholds, strict=True))[:5])
        more = ", ..." if len(self.classes) > 5 else ""
        return thresholds, f"Objects are shown from the score that is best on validation (F1 at IoU 0.5): {told}{more}"

    def mistakes(
        self, predicted: Sequence[InstanceSet], truth: Sequence[InstanceSet], limit: int
    ) -> list[dict[str, Any]]:
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

    def arrays(self, predicted: Sequence[InstanceSet], truth: Sequence[InstanceSet]) -> dict[str, np.ndarray]:
        """Flat: see ``arrays.flat``; ``size`` is [n, 2]."""
        size = np.array([each.size for each in truth], np.int64).reshape(-1, 2)
        return {"size": size, **flat("truth", truth), **flat("predicted", predicted)}

    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[Sequence[InstanceSet], Sequence[InstanceSet]]:
        return unflat("predicted", arrays), unflat("truth", arrays)

    def combine(self, outputs: Sequence[Any]) -> Any:
        """What all models have found, of which overlapping objects are thinned out as those of one."""
        return merged(outputs, len(self.classes))

    def describe(self, predicted: InstanceSet) -> dict[str, Any]:
        """``segmentation`` is COCO's: compressed runs, of the whole image."""
        shown = predicted.above(self.thresholds)
        scores = np.ones(len(shown), np.float32) if shown.scores is None else shown.scores
        objects = []
        for label, score, box, mask in zip(shown.labels, scores, shown.boxes, shown.masks, strict=True):
            rle = mask.rle(shown.size)
            objects.append(
                {
                    "label": self.classes[label],
                    "confidence": float(score),
                    "box": [round(float(side), 2) for side in box],
                    "area": mask.area,
                    "segmentation": {"size": list(rle.size), "counts": runs_to_text(rle.counts)},
                }
            )
        return {"objects": objects, "size": list(predicted.size), "text": self.caption(predicted)}

    def caption(self, target: InstanceSet) -> str:
        """``3 RBC, 1 WBC``"""
        counts = Counter(target.above(self.thresholds).labels.tolist())
        return ", ".join(f"{counts[i]} {self.classes[i]}" for i in sorted(counts)) or "nothing"

    def draw(self, image: np.ndarray, target: InstanceSet) -> Image.Image:
        from snellen.draw.instances import draw_instances

        shown = target.above(self.thresholds)
        names = [self.classes[label] for label in shown.labels]
        if shown.scores is not None:
            names = [f"{name} {score:.2f}" for name, score in zip(names, shown.scores, strict=True)]
        width, height = target.size
        scale = np.array([image.shape[1] / max(1, width), image.shape[0] / max(1, height)] * 2)
        pieces = [(mask.pixels(), scale * mask.region) for mask in shown.masks]
        return draw_instances(image, pieces, names, shown.labels.tolist())

    def draw_mistake(self, image: np.ndarray, truth: InstanceSet, predicted: InstanceSet) -> Image.Image:
        from snellen.draw.boxes import beside

        said = self.draw(image, replace(predicted, size=truth.size))
        return beside(self.draw(image, truth), said, ("truth", "prediction"))

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        from snellen.tasks.object_charts import charts

        return charts(Judged(*self.read_arrays(arrays)), self.classes)


def _truths(batch: Batch[InstanceSet]) -> list[Truth]:
    """What the network learns from; a blend of two images shows the objects of both (Zhang et al. 2019,
    arXiv:1902.04103)."""
    import torch

    from snellen.nn.detection.truth import Truth

    targets = batch.targets
    if batch.mixed is not None:
        targets = [own.joined(other) for own, other in zip(targets, batch.mixed.partners, strict=True)]
    truths = [
        Truth(
            boxes=torch.from_numpy(each.boxes),
            labels=torch.from_numpy(each.labels),
            crowd=torch.from_numpy(each.crowd),
            masks=torch.from_numpy(each.stacked()),
        )
        for each in targets
    ]
    return [truth.to(batch.images.device) for truth in truths]
