"""Instance segmentation: every object of the known classes, each as the pixels that show it, with a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.geometry import Size, identity
from snellen.core.masks import Mask, runs_to_text
from snellen.core.sample import Frame
from snellen.tasks.instances.arrays import flat_masks, unflat_masks
from snellen.tasks.instances.finding import FLOOR, MOST, find, placed_masks
from snellen.tasks.instances.fusion import voted
from snellen.tasks.instances.metrics import InstanceMetrics
from snellen.tasks.instances.target import InstanceSet
from snellen.tasks.objects.arrays import unflat
from snellen.tasks.objects.fusion import Fused, Sightings
from snellen.tasks.objects.task import ObjectTask

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.nn.detection.suppression_graph import Suppress
    from snellen.nn.detection.truth import Truth
    from snellen.nn.placing import Placed

_MASK_STRIDE = 4  # pixels of the input to a cell of a prototype, where no plan tells the input's size


class Instances(ObjectTask[InstanceSet]):
    """Masks with boxes: see ``ObjectTask``."""

    name = "instances"
    headline = "mask_map"
    kind = InstanceSet
    most = MOST
    architectures = ("dense", "mask-rcnn")
    settings = ObjectTask.settings | {"copy_paste"}

    _input_size: Size | None = None

    def configured(self, plan: Plan) -> Instances:
        self._nms = (plan.nms, plan.nms_iou)
        self._input_size = plan.preprocessing.input_size
        return self

    def paste(self, own: InstanceSet, other: InstanceSet, rng: np.random.Generator) -> tuple[InstanceSet, Mask]:
        """Some of the ``other`` objects, no crowds, in front of one's own; and bool [H, W], the pixels they bring."""
        objects = np.flatnonzero(~other.crowd)
        count = int(rng.integers(1, len(objects) + 1)) if len(objects) else 0
        pasted = other.chosen(np.sort(rng.permutation(objects)[:count]))
        pixels = pasted.pixels()
        return own.behind(pixels).joined(pasted), pixels

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.detection.mask_architectures import create_instance_detector

        return create_instance_detector(plan, len(self.classes))

    def truth(self, target: InstanceSet) -> Truth:
        import torch

        return replace(super().truth(target), masks=torch.from_numpy(target.stacked()))

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

    def fused_of(self, found: Sequence[InstanceSet], seen: Sightings, fused: Fused) -> InstanceSet:
        """Each mask is what most of the masks of its object show, each counted by its score (``fusion.voted``)."""
        masks = [mask for each in found for mask in each.masks]
        whole = [voted([masks[row] for row in rows], seen.weights[rows]) for rows in fused.rows]
        shown = np.array([mask.width > 0 for mask in whole], np.bool_)
        return InstanceSet.predicted(
            found[0].size,
            [mask for mask in whole if mask.width > 0],
            fused.boxes[shown],
            fused.labels[shown],
            fused.scores[shown],
        )

    def graph_answers(self, outputs: tuple[Tensor, Tensor], placed: Placed, suppress: Suppress) -> dict[str, Tensor]:
        """As for detection, and ``mask_logits`` float32 [m, h', w'] over the whole input: an object is where they are
        above 0, within its box."""
        from snellen.nn.detection.suppression_graph import choose, mask_logits, objects_in

        candidates, prototypes = outputs
        of_boxes = candidates[:, :, : 4 + len(self.classes)]
        kind, iou = self._nms
        chosen = choose(of_boxes, threshold=FLOOR, iou=iou, kind=kind, most=self.most, suppress=suppress)
        answers, chosen = objects_in(chosen, placed)
        coefficients = candidates[chosen.image, chosen.candidate, 4 + len(self.classes) :]
        return {**answers, "mask_logits": mask_logits(coefficients, prototypes, chosen.image)}

    def from_graph(self, answers: Mapping[str, np.ndarray], frames: Sequence[Frame]) -> list[InstanceSet]:
        return [
            placed_masks({name: rows[answers["image_index"] == i] for name, rows in answers.items()}, frame)
            for i, frame in enumerate(frames)
        ]

    def metrics(self) -> InstanceMetrics:
        return InstanceMetrics(self.classes)

    def flat(self, name: str, targets: Sequence[InstanceSet]) -> dict[str, np.ndarray]:
        """With the masks, as ``flat_masks`` says."""
        masks = [mask for each in targets for mask in each.masks]
        return {**super().flat(name, targets), **flat_masks(name, masks)}

    def unflat(self, name: str, arrays: Mapping[str, np.ndarray]) -> list[InstanceSet]:
        masks = iter(unflat_masks(name, arrays))
        return [
            InstanceSet(masks=tuple(islice(masks, len(fields["labels"]))), **fields) for fields in unflat(name, arrays)
        ]

    def describe(self, predicted: InstanceSet) -> dict[str, Any]:
        """``segmentation`` is COCO's: compressed runs, of the whole image."""
        told = super().describe(predicted)
        for each, mask in zip(told["objects"], predicted.above(self.thresholds).masks, strict=True):
            rle = mask.rle(predicted.size)
            shape = {"size": list(rle.size), "counts": runs_to_text(rle.counts)}
            each |= {"area": mask.area, "segmentation": shape}
        return told

    def draw_objects(
        self, image: np.ndarray, shown: InstanceSet, names: Sequence[str], scale: np.ndarray
    ) -> Image.Image:
        from snellen.draw.instances import draw_instances

        pieces = [(mask.pixels(), scale * mask.region) for mask in shown.masks]
        return draw_instances(image, pieces, names, shown.labels.tolist())
