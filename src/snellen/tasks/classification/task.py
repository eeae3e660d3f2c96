"""Image classification: one class an image, or any number of labels an image."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from snellen.core.record import Record
from snellen.metrics.decisions import THRESHOLD, class_decisions, label_decisions
from snellen.tasks.base import Difference, Task, shares_of
from snellen.tasks.classification.metrics import ClassificationMetrics, MultiLabelMetrics
from snellen.tasks.classification.target import Label, LabelSet

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Batch, Frame
    from snellen.draw.chart import Chart
    from snellen.nn.detection.suppression_graph import Suppress
    from snellen.nn.placing import Placed

KindT = TypeVar("KindT", Label, LabelSet)

_TIE = 1e-5  # of a probability: what two runtimes differ by


class _ImageTask(Task[KindT]):
    """What the two kinds of classification share: a backbone with a linear head."""

    parts_classes = True

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.backbone import create_backbone
        from snellen.nn.network import Network

        backbone = create_backbone(
            plan.model,
            input_size=max(plan.preprocessing.input_size),
            norm=plan.norm,
            activation=plan.activation,
            dropout=plan.dropout,
        )
        return Network(plan.preprocessing, backbone, len(self.classes), plan.dropout, plan.feature_stage)

    def _fit_head(self, features: Tensor, targets: Tensor, groups: Sequence[str], plan: Plan) -> Mapping[str, Tensor]:
        from snellen.nn.linear_probe import Balance, fit_linear_probe

        probe = fit_linear_probe(features, targets, len(self.classes), groups, plan.seed, Balance.of(plan))
        return {"head.weight": probe.weight, "head.bias": probe.bias}

    def _fit_svm(self, features: Tensor, targets: Tensor, groups: Sequence[str], plan: Plan) -> Mapping[str, Tensor]:
        from snellen.nn.support_vectors import fit_linear_svm

        weight, bias = fit_linear_svm(features, targets, len(self.classes), groups, plan)
        return {"head.weight": weight, "head.bias": bias}

    def decode_together(
        self, outputs: Sequence[Tensor], frames: Sequence[Sequence[Frame]] = (), weights: Sequence[float] = ()
    ) -> Sequence[KindT]:
        """By the weighted mean of the probabilities."""
        return self.decode(self._mean(outputs, shares_of(weights, len(outputs))))

    def graph_answers_together(
        self, outputs: Sequence[Tensor], placed: Sequence[Placed], suppress: Suppress, weights: Sequence[float] = ()
    ) -> dict[str, Tensor]:
        mean = outputs[0] if len(outputs) == 1 else self._mean(outputs, shares_of(weights, len(outputs)))
        return self.graph_answers(mean, placed[0], suppress)

    @abstractmethod
    def _mean(self, outputs: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        """Raw outputs, each of its share -> raw outputs that decode to the mean of the probabilities."""

    def draw(self, image: np.ndarray, target: KindT) -> Image.Image:
        from snellen.draw.pictures import draw_label

        return draw_label(image, self.caption(target))

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        from snellen.tasks.classification.plots import charts

        several = self.name == "multilabel"
        return charts(arrays["truth"], arrays["scores"], self.classes, several, arrays.get("predicted"))


class Classification(_ImageTask[Label]):
    """One class an image; softmax cross-entropy."""

    name = "classification"
    headline = "accuracy"
    loss_names = ("cross-entropy", "focal")

    def target(self, record: Record) -> Label:
        return Label.of(record, self.classes)

    def criterion(self, outputs: Tensor, batch: Batch[Label], plan: Plan) -> dict[str, Tensor]:
        from snellen.nn.losses import ONE_CLASS, cross_entropy

        logits, truth = outputs.float(), _indices(batch.targets, outputs)
        if not outputs.requires_grad:  # validation shows the plain loss, whatever is minimised
            return {"cross_entropy": cross_entropy(logits, truth)}
        return {plan.loss: ONE_CLASS[plan.loss](logits, truth, plan)}

    def fit_probe(
        self, features: Tensor, targets: Sequence[Label], groups: Sequence[str], plan: Plan
    ) -> Mapping[str, Tensor]:
        return self._fit_head(features, _indices(targets, features), groups, plan)

    def fit_svm(
        self, features: Tensor, targets: Sequence[Label], groups: Sequence[str], plan: Plan
    ) -> Mapping[str, Tensor]:
        return self._fit_svm(features, _indices(targets, features), groups, plan)

    def numbers(self, targets: Sequence[Label]) -> Tensor:
        import torch.nn.functional as F

        return 2 * F.one_hot(_indices(targets), len(self.classes)).float() - 1

    def decode(self, outputs: Tensor, frames: Sequence[Frame] = ()) -> list[Label]:
        scores = outputs.detach().float().softmax(1).cpu().numpy()
        decided = class_decisions(scores, self.decision)
        return [Label(int(index), row) for index, row in zip(decided, scores, strict=True)]

    def graph_answers(self, outputs: Tensor, placed: Placed, suppress: Suppress) -> dict[str, Tensor]:
        """``probabilities`` float32 [n, C] and ``label`` int64 [n]"""
        probabilities = outputs.float().softmax(1)
        favour = outputs.new_tensor(self.decision or [1.0]).float()
        return {"probabilities": probabilities, "label": (probabilities * favour).argmax(1)}

    def from_graph(self, answers: Mapping[str, np.ndarray], frames: Sequence[Frame]) -> list[Label]:
        scores = answers["probabilities"]
        return [Label(int(index), row) for index, row in zip(answers["label"], scores, strict=True)]

    def difference(self, one: Label, other: Label) -> Difference:
        """Two classes that are equally likely, to 1e-5, are no decision."""
        weighted = np.asarray(one.scores, np.float64) * (self.decision or 1.0)
        tie = abs(weighted[one.index] - weighted[other.index]) <= _TIE
        return Difference(1, int(one.index != other.index and not tie), _apart(one, other))

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
        decided, true = (np.array([label.index for label in labels], np.int64) for labels in (predicted, truth))
        return {"scores": _scores(predicted), "predicted": decided, "truth": true}

    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[list[Label], list[Label]]:
        scores = arrays["scores"]
        decided = arrays["predicted"] if "predicted" in arrays else class_decisions(scores)  # older files have none
        predicted = [Label(int(index), row) for index, row in zip(decided, scores, strict=True)]
        return predicted, [Label(int(index)) for index in arrays["truth"]]

    def _mean(self, outputs: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        return _log_mean([output.float().log_softmax(1) for output in outputs], shares)

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
        from snellen.nn.losses import ANY_LABELS, binary_cross_entropy

        logits, truth = outputs.float(), _presence(batch.targets, outputs)
        if not outputs.requires_grad:  # validation shows the plain loss, whatever is minimised
            return {"binary_cross_entropy": binary_cross_entropy(logits, truth)}
        return {plan.loss: ANY_LABELS[plan.loss](logits, truth, plan)}

    def fit_probe(
        self, features: Tensor, targets: Sequence[LabelSet], groups: Sequence[str], plan: Plan
    ) -> Mapping[str, Tensor]:
        return self._fit_head(features, _presence(targets, features), groups, plan)

    def fit_svm(
        self, features: Tensor, targets: Sequence[LabelSet], groups: Sequence[str], plan: Plan
    ) -> Mapping[str, Tensor]:
        return self._fit_svm(features, _presence(targets, features), groups, plan)

    def numbers(self, targets: Sequence[LabelSet]) -> Tensor:
        return 2 * _presence(targets) - 1

    def decode(self, outputs: Tensor, frames: Sequence[Frame] = ()) -> list[LabelSet]:
        scores = outputs.detach().float().sigmoid().cpu().numpy()
        decided = label_decisions(scores, self.decision)
        return [LabelSet(present, row) for present, row in zip(decided, scores, strict=True)]

    def graph_answers(self, outputs: Tensor, placed: Placed, suppress: Suppress) -> dict[str, Tensor]:
        """``probabilities`` float32 [n, C] and ``present`` bool [n, C]"""
        probabilities = outputs.float().sigmoid()
        thresholds = outputs.new_tensor(self.decision or [THRESHOLD]).float()
        return {"probabilities": probabilities, "present": probabilities >= thresholds}

    def from_graph(self, answers: Mapping[str, np.ndarray], frames: Sequence[Frame]) -> list[LabelSet]:
        scores = answers["probabilities"]
        return [LabelSet(present.astype(bool), row) for present, row in zip(answers["present"], scores, strict=True)]

    def difference(self, one: LabelSet, other: LabelSet) -> Difference:
        """A label at its threshold, to 1e-5, is no decision."""
        clear = np.abs(np.asarray(one.scores, np.float64) - (self.decision or THRESHOLD)) > _TIE
        different = int((clear & (np.asarray(one.present) != np.asarray(other.present))).sum())
        return Difference(len(self.classes), different, _apart(one, other))

    def metrics(self) -> MultiLabelMetrics:
        return MultiLabelMetrics(self.classes)

    def majority(self, train: Sequence[LabelSet], num: int) -> list[LabelSet]:
        counts = np.sum([labels.present for labels in train], axis=0)
        scores = ((counts + 1) / (len(train) + 2)).astype(np.float32)
        return [LabelSet(label_decisions(scores), scores)] * num

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
        present, true = (np.array([each.present for each in sets], np.uint8) for sets in (predicted, truth))
        size = (len(truth), len(self.classes))
        return {"scores": _scores(predicted), "predicted": present.reshape(size), "truth": true.reshape(size)}

    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[list[LabelSet], list[LabelSet]]:
        scores = arrays["scores"]
        present = arrays["predicted"] if "predicted" in arrays else label_decisions(scores)  # older files have none
        predicted = [LabelSet(row.astype(bool), row_scores) for row, row_scores in zip(present, scores, strict=True)]
        return predicted, [LabelSet(row.astype(bool)) for row in arrays["truth"]]

    def _mean(self, outputs: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
        import torch.nn.functional as F

        there, absent = ([F.logsigmoid(sign * output.float()) for output in outputs] for sign in (1, -1))
        return _log_mean(there, shares) - _log_mean(absent, shares)  # log odds of the mean

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


def _log_mean(logs: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The logarithm of the mean of probabilities that are given by their logarithms."""
    import torch

    weighted = [log + math.log(share) for log, share in zip(logs, shares, strict=True) if share > 0]
    return torch.stack(weighted).logsumexp(0)


def _apart(one: Label | LabelSet, other: Label | LabelSet) -> float:
    return float(np.abs(np.asarray(one.scores, np.float64) - np.asarray(other.scores, np.float64)).max(initial=0.0))


def _scores(predicted: Sequence[Label] | Sequence[LabelSet]) -> np.ndarray:
    """float32 [n, k]"""
    return np.array([label.scores for label in predicted], np.float32)


def _indices(targets: Sequence[Label], like: Tensor | None = None) -> Tensor:
    import torch

    return torch.tensor([label.index for label in targets], device=None if like is None else like.device)


def _presence(targets: Sequence[LabelSet], like: Tensor | None = None) -> Tensor:
    import torch

    return torch.from_numpy(np.array([labels.present for labels in targets], np.float32)).to(
        "cpu" if like is None else like.device
    )
