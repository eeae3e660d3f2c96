"""Image regression: one number an image, or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.core.estimate import amount
from snellen.core.record import Record
from snellen.tasks.base import Difference, Task, shares_of
from snellen.tasks.regression.metrics import RegressionMetrics
from snellen.tasks.regression.target import Values

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.plan import Plan
    from snellen.core.sample import Batch, Frame
    from snellen.draw.chart import Chart
    from snellen.nn.detection.suppression_graph import Suppress
    from snellen.nn.placing import Placed

# What the plan calls a loss -> torch's function. It gets errors in standard deviations of the training truth, so
# that losses of years and of grams can be compared, and of several outputs none drowns the others.
_LOSSES = {"smooth-l1": "smooth_l1_loss", "l2": "mse_loss", "l1": "l1_loss"}


class Regression(Task[Values]):
    """Numbers in their own units, ``classes`` being their names."""

    name = "regression"
    headline = "r2"
    loss_names = tuple(_LOSSES)
    trivial_answer = "the mean of the training images"

    def target(self, record: Record) -> Values:
        return Values.of(record, self.classes)

    def target_scale(self, train: Sequence[Values]) -> dict[str, Any]:
        truth = _matrix(train, len(self.classes)).astype(np.float64)
        std = truth.std(axis=0)
        return {
            "target_mean": tuple(truth.mean(axis=0).tolist()),
            "target_std": tuple(np.where(std > 0, std, 1.0).tolist()),
        }

    def build_model(self, plan: Plan) -> nn.Module:
        from snellen.nn.backbone import create_backbone
        from snellen.nn.network import Network
        from snellen.nn.scaled_linear import ScaledLinear

        backbone = create_backbone(
            plan.model,
            input_size=max(plan.preprocessing.input_size),
            norm=plan.norm,
            activation=plan.activation,
            dropout=plan.dropout,
        )
        network = Network(plan.preprocessing, backbone, len(self.classes), plan.dropout, plan.feature_stage)
        network.head = ScaledLinear(network.num_features, len(self.classes), plan.target_mean, plan.target_std)
        return network

    def criterion(self, outputs: Tensor, batch: Batch[Values], plan: Plan) -> dict[str, Tensor]:
        import torch.nn.functional as F

        scale = outputs.new_tensor(plan.target_std or [1.0] * len(self.classes)).float()
        difference = (outputs.float() - _tensor(batch.targets, outputs)) / scale
        loss = getattr(F, _LOSSES[plan.loss])
        return {plan.loss.replace("-", "_"): loss(difference, difference.new_zeros(()).expand_as(difference))}

    def fit_probe(
        self, features: Tensor, targets: Sequence[Values], groups: Sequence[str], plan: Plan
    ) -> Mapping[str, Tensor]:
        from snellen.nn.ridge import fit_ridge

        probe = fit_ridge(features, _tensor(targets, features), groups, plan.seed)
        return {"head.weight": probe.weight, "head.bias": probe.bias}

    def numbers(self, targets: Sequence[Values]) -> Tensor:
        import torch

        return torch.from_numpy(_matrix(targets, len(self.classes)))

    def decode(self, outputs: Tensor, frames: Sequence[Frame] = ()) -> list[Values]:
        return [Values(row) for row in outputs.detach().float().cpu().numpy()]

    def graph_answers(self, outputs: Tensor, placed: Placed, suppress: Suppress) -> dict[str, Tensor]:
        """``values`` float32 [n, K]"""
        return {"values": outputs.float()}

    def graph_answers_together(
        self, outputs: Sequence[Tensor], placed: Sequence[Placed], suppress: Suppress, weights: Sequence[float] = ()
    ) -> dict[str, Tensor]:
        mean = outputs[0] if len(outputs) == 1 else _mean(outputs, shares_of(weights, len(outputs)))
        return self.graph_answers(mean, placed[0], suppress)

    def from_graph(self, answers: Mapping[str, np.ndarray], frames: Sequence[Frame]) -> list[Values]:
        return [Values(row) for row in answers["values"]]

    def difference(self, one: Values, other: Values) -> Difference:
        """A value is decided otherwise where it differs by more than a thousandth of its size."""
        said, again = (np.asarray(each.values, np.float64) for each in (one, other))
        apart = np.abs(said - again) / np.maximum(np.maximum(np.abs(said), np.abs(again)), 1e-6)
        return Difference(len(self.classes), int((apart > 1e-3).sum()), float(apart.max(initial=0.0)))

    def metrics(self) -> RegressionMetrics:
        return RegressionMetrics(self.classes)

    def majority(self, train: Sequence[Values], num: int) -> list[Values]:
        mean = _matrix(train, len(self.classes)).mean(axis=0, dtype=np.float64)
        return [Values(mean.astype(np.float32))] * num

    def mistakes(self, predicted: Sequence[Values], truth: Sequence[Values], limit: int) -> list[dict[str, Any]]:
        """The largest errors first; of several outputs by the one that is farthest off for its spread, and only that
        one is told. ``off`` (text) stands in for the confidence: predicted less true."""
        if not truth:
            return []
        true, said = (_matrix(each, len(self.classes)).astype(np.float64) for each in (truth, predicted))
        spread = true.std(axis=0)
        far = np.abs(said - true) / np.where(spread > 0, spread, 1.0)
        output = far.argmax(axis=1)
        worst = far.max(axis=1)
        order = [int(i) for i in (-worst).argsort(kind="stable")[:limit] if worst[i] > 0]
        return [
            {
                "index": i,
                "truth": f"{self.classes[output[i]]} {amount(float(true[i, output[i]]))}",
                "predicted": amount(float(said[i, output[i]])),
                "confidence": None,
                "off": f"{'+' if said[i, output[i]] > true[i, output[i]] else ''}"
                f"{amount(float(said[i, output[i]] - true[i, output[i]]))}",
            }
            for i in order
        ]

    def arrays(self, predicted: Sequence[Values], truth: Sequence[Values]) -> dict[str, np.ndarray]:
        k = len(self.classes)
        return {"predicted": _matrix(predicted, k), "truth": _matrix(truth, k)}

    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[list[Values], list[Values]]:
        return [Values(row) for row in arrays["predicted"]], [Values(row) for row in arrays["truth"]]

    def decode_together(
        self, outputs: Sequence[Tensor], frames: Sequence[Sequence[Frame]] = (), weights: Sequence[float] = ()
    ) -> list[Values]:
        """The weighted mean of the values."""
        return self.decode(_mean(outputs, shares_of(weights, len(outputs))))

    def describe(self, predicted: Values) -> dict[str, Any]:
        return {"values": {name: float(value) for name, value in zip(self.classes, predicted.values, strict=True)}}

    def caption(self, target: Values) -> str:
        numbers = (amount(float(value)) for value in target.values)
        return ", ".join(f"{name} {number}" for name, number in zip(self.classes, numbers, strict=True))

    def draw(self, image: np.ndarray, target: Values) -> Image.Image:
        from snellen.draw.pictures import draw_label

        return draw_label(image, self.caption(target))

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        from snellen.tasks.regression.plots import charts

        return charts(arrays["truth"], arrays["predicted"], self.classes)


def _matrix(targets: Sequence[Values], num_outputs: int) -> np.ndarray:
    """float32 [n, k]"""
    return np.array([target.values for target in targets], np.float32).reshape(len(targets), num_outputs)


def _mean(outputs: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    import torch

    return torch.stack([share * output.float() for share, output in zip(shares, outputs, strict=True)]).sum(0)


def _tensor(targets: Sequence[Values], like: Tensor) -> Tensor:
    import torch

    return torch.from_numpy(np.array([target.values for target in targets], np.float32)).to(like.device)
