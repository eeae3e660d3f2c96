"""Semantic segmentation: one class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.geometry import Size
from snellen.core.record import BACKGROUND, Record
from snellen.data.elastic import ElasticField
from snellen.data.mask_files import VOID
from snellen.data.tiles import Region
from snellen.metrics.class_maps import image_iou
from snellen.nn.segmentation.table import ARCHITECTURES
from snellen.tasks.base import Difference, Task, shares_of
from snellen.tasks.segmentation.metrics import SegmentationMetrics, image_counts, stacked
from snellen.tasks.segmentation.target import ClassMap, class_counts, from_arrays, to_arrays

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Batch, Frame
    from snellen.draw.chart import Chart
    from snellen.nn.catalog import Provenance
    from snellen.nn.detection.suppression_graph import Suppress
    from snellen.nn.placing import Placed

_MOST_NAMED = 5  # classes in a caption
_LEAST_SHARE = 0.0005  # of the pixels, below which a class is not worth a word beside others


class Segmentation(Task[ClassMap]):
    """A class for each pixel of the image on disk; softmax over the classes, void pixels left out."""

    name = "segmentation"
    headline = "mean_iou"
    loss_names = ("cross-entropy+dice", "cross-entropy", "focal", "dice", "jaccard", "lovasz")
    dense = True
    architectures = tuple(ARCHITECTURES)
    settings = frozenset({"dropout", "mosaic"})
    tile_merges = ("nearest",)
    trivial_answer = "the most frequent class everywhere"

    def target(self, record: Record) -> ClassMap:
        return ClassMap.of(record, self.classes)

    def warp(self, target: ClassMap, matrix: np.ndarray, size: Size, field: ElasticField | None = None) -> ClassMap:
        return target.moved(matrix, size, field)

    def nothing(self, like: ClassMap) -> ClassMap:
        return ClassMap.from_array(np.full(like.size[::-1], VOID, np.uint8))

    def overlay(self, own: ClassMap, other: ClassMap, region: tuple[int, int, int, int]) -> ClassMap:
        x0, y0, x1, y1 = region
        found = own.array.copy()
        found[y0:y1, x0:x1] = other.array[y0:y1, x0:x1]
        return ClassMap.from_array(found)

    def class_sizes(self, targets: Sequence[ClassMap]) -> list[float]:
        total = sum((_counts(each, len(self.classes)) for each in targets), np.zeros(len(self.classes)))
        return [float(count) for count in total]

    # --- learning

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.segmentation.architectures import create_segmenter

        return create_segmenter(
            plan.architecture,
            plan.preprocessing,
            plan.model,
            len(self.classes),
            norm=plan.norm,
            activation=plan.activation,
            dropout=plan.dropout,
        )

    def load_weights(self, model: nn.Module, plan: Plan) -> Provenance:
        from snellen.nn.feature_maps import load_pretrained_maps

        backbone: Any = model.get_submodule("backbone")
        backbone = getattr(backbone, "model", backbone)  # the network of timm inside an encoder of smp
        return load_pretrained_maps(backbone, plan.model, file=plan.weights, pretrained=plan.pretrained)

    def check_loss(self, loss: str) -> None:
        from snellen.nn.pixel_losses import parse_sum

        parse_sum(loss)

    def criterion(self, outputs: Tensor, batch: Batch[ClassMap], plan: Plan) -> dict[str, Tensor]:
        from snellen.nn.pixel_losses import cross_entropy, pixel_losses

        truth = _pixels(batch.targets, outputs)
        if not outputs.requires_grad:  # validation shows the plain loss, whatever is minimised
            return {"cross_entropy": cross_entropy(outputs, truth)}
        return pixel_losses(outputs, truth, plan)

    def decode(self, outputs: Tensor, frames: Sequence[Frame] = ()) -> list[ClassMap]:
        from snellen.nn.segmentation.answers import decide

        framed: Sequence[Frame | None] = frames or [None] * len(outputs)
        return [
            ClassMap.from_array(*decide(logits, frame, self._favour(outputs)))
            for logits, frame in zip(outputs.detach(), framed, strict=True)
        ]

    def decode_together(
        self, outputs: Sequence[Tensor], frames: Sequence[Sequence[Frame]] = (), weights: Sequence[float] = ()
    ) -> list[ClassMap]:
        """By the weighted mean of the probabilities of each pixel."""
        from snellen.nn.segmentation.answers import Sight, decide_together

        shares = shares_of(weights, len(outputs))
        images = []
        for i in range(len(outputs[0])):
            sights = [
                Sight(each[i].detach(), frames[k][i] if frames else None, share)
                for k, (each, share) in enumerate(zip(outputs, shares, strict=True))
                if share > 0
            ]
            images.append(ClassMap.from_array(*decide_together(sights, self._favour(outputs[0]))))
        return images

    def _favour(self, outputs: Tensor) -> Tensor | None:
        """What is added to the logits [C] for what is decided, and not for how sure that is."""
        return outputs.new_tensor(self.decision).log() if self.decision else None

    def merge(self, parts: Sequence[ClassMap], regions: Sequence[Region], size: Size, way: str) -> ClassMap:
        return ClassMap.assembled(parts, regions, size, len(self.classes))

    # --- results

    def metrics(self) -> SegmentationMetrics:
        return SegmentationMetrics(self.classes)

    def majority(self, train: Sequence[ClassMap], num: int) -> list[ClassMap]:
        """Of one pixel, which stands for an image of any size."""
        counts = sum((_counts(each, len(self.classes)) for each in train), np.zeros(len(self.classes)))
        most = np.full((1, 1), counts.argmax(), np.uint8)
        shares = (counts / max(1.0, counts.sum())).astype(np.float32)
        sure = np.where(np.arange(len(self.classes)) == most[0, 0], shares, 0).astype(np.float32)
        return [ClassMap.from_array(most, sure)] * num

    def mistakes(self, predicted: Sequence[ClassMap], truth: Sequence[ClassMap], limit: int) -> list[dict[str, Any]]:
        """The images with the lowest mean IoU over the classes that they show; ``off`` tells it in percent."""
        if not truth:
            return []
        counts = stacked([image_counts(*pair, len(self.classes)) for pair in zip(predicted, truth, strict=True)])
        wrong = np.any(counts.hits < counts.truth, axis=1)
        overlap = image_iou(counts)
        order = [int(i) for i in np.argsort(overlap, kind="stable") if wrong[i]]
        return [
            {
                "index": i,
                "truth": self.caption(truth[i]),
                "predicted": self.caption(predicted[i]),
                "confidence": self._confidence(predicted[i]),
                "off": f"{100 * overlap[i]:.1f}",
                "unit": "% IoU",
            }
            for i in order[:limit]
        ]

    def arrays(self, predicted: Sequence[ClassMap], truth: Sequence[ClassMap]) -> dict[str, np.ndarray]:
        """Maps as ``target.to_arrays`` writes them, and ``confidence`` float32 [n, C], the scores of predictions."""
        sure = [np.zeros(len(self.classes), np.float32) if each.scores is None else each.scores for each in predicted]
        return {
            **to_arrays(predicted, "predicted"),
            **to_arrays(truth, "truth"),
            "confidence": np.array(sure, np.float32).reshape(len(predicted), len(self.classes)),
        }

    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[list[ClassMap], list[ClassMap]]:
        said = zip(from_arrays(arrays, "predicted"), arrays["confidence"], strict=True)
        predicted = [ClassMap(each.size, each.packed, scores) for each, scores in said]
        return predicted, from_arrays(arrays, "truth")

    def describe(self, predicted: ClassMap) -> dict[str, Any]:
        """The classes that are there, the largest first, what share of the pixels each takes, and how sure that is."""
        shares = predicted.shares(len(self.classes))
        order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
        return {
            "labels": [self.classes[i] for i in order],
            "shares": {self.classes[i]: float(shares[i]) for i in order},
            "confidence": self._confidence(predicted),
            "size": list(predicted.size),
            "text": self.caption(predicted),
        }

    def caption(self, target: ClassMap) -> str:
        shares = target.shares(len(self.classes))
        order = [int(i) for i in np.argsort(-shares, kind="stable") if shares[i] > 0]
        named = [i for i in order[:_MOST_NAMED] if i == order[0] or shares[i] >= _LEAST_SHARE]
        words = [f"{self.classes[i]} {100 * shares[i]:.{0 if shares[i] >= 0.01 else 1}f} %" for i in named]
        more = [f"{len(order) - len(named)} more"] if len(order) > len(named) else []
        return ", ".join([*words, *more]) or "void"

    def _confidence(self, predicted: ClassMap) -> float | None:
        """Mean over the pixels of the probability of the class that they were given; None for a truth."""
        if predicted.scores is None:
            return None
        return float(np.clip(predicted.shares(len(self.classes)) @ predicted.scores, 0, 1))

    # --- graphs

    def graph_answers(self, outputs: Tensor, placed: Placed, suppress: Suppress) -> dict[str, Tensor]:
        """``classes`` uint8 [n, H, W] of the pixels of the images, and ``confidence`` float32 [n, C]"""
        return self.graph_answers_together([outputs], [placed], suppress)

    def graph_answers_together(
        self, outputs: Sequence[Tensor], placed: Sequence[Placed], suppress: Suppress, weights: Sequence[float] = ()
    ) -> dict[str, Tensor]:
        from snellen.nn.segmentation.answers import decide_batch

        every = zip(outputs, [each.lines() for each in placed], shares_of(weights, len(outputs)), strict=True)
        logits, lines, shares = zip(*(each for each in every if each[2] > 0), strict=True)
        classes, confidence = decide_batch(logits, lines, shares, self._favour(outputs[0].float()))
        return {"classes": classes, "confidence": confidence}

    def from_graph(self, answers: Mapping[str, np.ndarray], frames: Sequence[Frame]) -> list[ClassMap]:
        said = zip(answers["classes"], answers["confidence"], strict=True)
        return [ClassMap.from_array(np.ascontiguousarray(classes), scores) for classes, scores in said]

    def difference(self, one: ClassMap, other: ClassMap) -> Difference:
        pixels = one.size[0] * one.size[1]
        if one.size != other.size:
            return Difference(pixels, pixels, 1.0)
        sure = [np.zeros(1) if each.scores is None else np.asarray(each.scores, np.float64) for each in (one, other)]
        different = int((one.array != other.array).sum())
        return Difference(pixels, different, float(np.abs(sure[0] - sure[1]).max(initial=0.0)))

    # --- pictures

    def draw(self, image: np.ndarray, target: ClassMap) -> Image.Image:
        from snellen.draw.class_maps import draw_class_map

        clear = self.classes.index(BACKGROUND) if BACKGROUND in self.classes else None
        return draw_class_map(image, target.array, self.classes, clear=clear)

    def draw_mistake(self, image: np.ndarray, truth: ClassMap, predicted: ClassMap) -> Image.Image:
        from snellen.draw.boxes import beside

        return beside(self.draw(image, truth), self.draw(image, predicted), ("truth", "predicted"))

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        from snellen.tasks.segmentation.plots import charts

        return charts(*self.read_arrays(arrays), self.classes)


def _counts(target: ClassMap, num_classes: int) -> np.ndarray:
    """Pixels of each class, float64 [C]."""
    return class_counts(target.array, num_classes).astype(np.float64)


def _pixels(targets: Sequence[ClassMap], outputs: Tensor) -> Tensor:
    """uint8 [n, h, w]"""
    import torch

    return torch.from_numpy(np.stack([target.array for target in targets])).to(outputs.device)
