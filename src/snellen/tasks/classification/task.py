"""Image classification: one class an image, or any number of labels an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from snellen.core.record import Record
from snellen.tasks.base import Task
from snellen.tasks.classification.metrics import ClassificationMetrics, MultiLabelMetrics
from snellen.tasks.classification.target import Label, LabelSet

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Batch
    from snellen.draw.chart import Chart

THRESHOLD = 0.5  # probability from which a label counts as present
KindT = TypeVar("KindT", Label, LabelSet)


class _ImageTask(Task[KindT]):
    """What the two kinds of classification share: a backbone with a linear head."""

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.backbone import create_backbone
        from snellen.nn.network import Network

        backbone = create_backbone(plan.model, input_size=max(plan.preprocessing.input_size))
        return Network(plan.preprocessing, backbone, len(self.classes), plan.dropout)

    def _fit_head(self, features: Tensor, targets: Tensor, groups: Sequence[str], seed: int) -> Mapping[str, Tensor]:
        from snellen.nn.linear_probe import fit_linear_probe

        probe = fit_linear_probe(features, targets, len(self.classes), groups, seed)
        return {"head.weight": probe.weight, "head.bias": probe.bias}

    def draw(self, image: np.ndarray, target: KindT) -> Image.Image:
        from snellen.draw.pictures import draw_label

        return draw_label(image, self.caption(target))

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        from snellen.tasks.classification.plots import charts

        return charts(arrays["truth"], arrays["scores"], self.classes, self.name == "multilabel")


class Classification(_ImageTask[Label]):
    """One class an image; softmax cross-entropy."""

    name = "classification"
    headline = "accuracy"
    loss_names = ("cross-entropy", "focal")

    def target(self, record: Record) -> Label:
        return Label.of(record, self.classes)

    def criterion(self, outputs: Tensor, batch: Batch[Label], plan: Plan) -> dict[str, Tensor]:
        import torch.nn.functional as F

        truth = _indices(batch.targets, outputs)
        smoothing = plan.label_smoothing if outputs.requires_grad else 0.0  # validation shows the plain loss
        return {"cross_entropy": F.cross_entropy(outputs.float(), truth, label_smoothing=smoothing)}

    def fit_probe(
        self, features: Tensor, targets: Sequence[Label], groups: Sequence[str], seed: int
    ) -> Mapping[str, Tensor]:
        return self._fit_head(features, _indices(targets, features), groups, seed)

    def decode(self, outputs: Tensor) -> list[Label]:
        scores = outputs.detach().float().softmax(1).cpu().numpy()
        return [Label(int(index), row) for index, row in zip(scores.argmax(1), scores, strict=True)]

    def metrics(self) -> ClassificationMetrics:
        return ClassificationMetrics(self.classes)

    def majority(self, train: Sequence[Label], num: int) -> list[Label]:
        counts = np.bincount([label.index for label in train], minlength=len(self.classes))
        # Laplace's rule keeps the log loss finite for a class that training lacks.
        scores = ((counts + 1) / (counts.sum() + len(counts))).astype(np.float32)
        return [Label(int(counts.argmax()), scores)] * num

    def mistakes(self, predicted: Sequence[Label], truth: Sequence[Label], limit: int) -> list[dict[str, Any]]:
        wrong = [i for i, (p, t) in enumerate(zip(predicted, truth, strict=True)) if p.index != t.index]
        wrong.sort(key=lambda i: -self._confidence(predicted[i]))
        return [
            {
                "index": i,
                "truth": self.classes[truth[i].index],
                "predicted": self.classes[predicted[i].index],
                "confidence": self._confidence(predicted[i]),
            }
            for i in wrong[:limit]
        ]

    def arrays(self, predicted: Sequence[Label], truth: Sequence[Label]) -> dict[str, np.ndarray]:
        return {"scores": _scores(predicted), "truth": np.array([label.index for label in truth], np.int64)}

    def describe(self, predicted: Label) -> dict[str, Any]:
        probabilities = {name: float(p) for name, p in zip(self.classes, _scores([predicted])[0], strict=True)}
        return {
            "label": self.classes[predicted.index],
            "confidence": self._confidence(predicted),
            "probabilities": probabilities,
        }

    def caption(self, target: Label) -> str:
        name = self.classes[target.index]
        return name if target.scores is None else f"{name} {self._confidence(target):.0%}"

    def _confidence(self, predicted: Label) -> float:
        return float(_scores([predicted])[0][predicted.index])


class MultiLabel(_ImageTask[LabelSet]):
    """Any number of labels an image, each decided by itself; binary cross-entropy."""

    name = "multilabel"
    headline = "mean_average_precision"
    loss_names = ("bce", "focal")

    def target(self, record: Record) -> LabelSet:
        return LabelSet.of(record, self.classes)

    def criterion(self, outputs: Tensor, batch: Batch[LabelSet], plan: Plan) -> dict[str, Tensor]:
        import torch.nn.functional as F

        truth = _presence(batch.targets, outputs)
        if outputs.requires_grad:
            truth = truth * (1 - plan.label_smoothing) + plan.label_smoothing / 2
        return {"binary_cross_entropy": F.binary_cross_entropy_with_logits(outputs.float(), truth)}

    def fit_probe(
        self, features: Tensor, targets: Sequence[LabelSet], groups: Sequence[str], seed: int
    ) -> Mapping[str, Tensor]:
        return self._fit_head(features, _presence(targets, features), groups, seed)

    def decode(self, outputs: Tensor) -> list[LabelSet]:
        scores = outputs.detach().float().sigmoid().cpu().numpy()
        return [LabelSet(row >= THRESHOLD, row) for row in scores]

    def metrics(self) -> MultiLabelMetrics:
        return MultiLabelMetrics(self.classes)

    def majority(self, train: Sequence[LabelSet], num: int) -> list[LabelSet]:
        counts = np.sum([labels.present for labels in train], axis=0)
        scores = ((counts + 1) / (len(train) + 2)).astype(np.float32)
        return [LabelSet(scores >= THRESHOLD, scores)] * num

    def mistakes(self, predicted: Sequence[LabelSet], truth: Sequence[LabelSet], limit: int) -> list[dict[str, Any]]:
        scores, present = _scores(predicted), np.array([labels.present for labels in truth], bool)
        if not len(scores):
            return []
        excess = np.where(present, 1 - scores, scores)  # how far each decision is from the truth
        wrong = np.array([labels.present for labels in predicted]) != present
        worst = np.where(wrong, excess, 0).max(1)
        order = [int(i) for i in (-worst).argsort(kind="stable")[:limit] if worst[i] > 0]
        return [
            {
                "index": i,
                "truth": self._names(truth[i]),
                "predicted": self._names(predicted[i]),
                "confidence": float(worst[i]),
            }
            for i in order
        ]

    def arrays(self, predicted: Sequence[LabelSet], truth: Sequence[LabelSet]) -> dict[str, np.ndarray]:
        present = [labels.present for labels in truth]
        return {"scores": _scores(predicted), "truth": np.array(present, np.uint8).reshape(len(truth), -1)}

    def describe(self, predicted: LabelSet) -> dict[str, Any]:
        scores = _scores([predicted])[0]
        return {
            "labels": [name for name, there in zip(self.classes, predicted.present, strict=True) if there],
            "probabilities": {name: float(p) for name, p in zip(self.classes, scores, strict=True)},
        }

    def caption(self, target: LabelSet) -> str:
        return self._names(target)

    def _names(self, labels: LabelSet) -> str:
        return ", ".join(np.array(self.classes, object)[labels.present]) or "none"


def _scores(predicted: Sequence[Label] | Sequence[LabelSet]) -> np.ndarray:
    """float32 [n, k]"""
    return np.array([label.scores for label in predicted], np.float32)


def _indices(targets: Sequence[Label], like: Tensor) -> Tensor:
    import torch

    return torch.tensor([label.index for label in targets], device=like.device)


def _presence(targets: Sequence[LabelSet], like: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(np.array([labels.present for labels in targets], np.float32)).to(like.device)
