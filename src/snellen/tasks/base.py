"""The contract that a task fulfils. Everything else in Snellen works with any task through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, Self, TypeVar

from snellen.core.errors import ConfigError, did_you_mean
from snellen.core.estimate import Estimate
from snellen.core.record import Record

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor, nn

    from snellen.core.config import Config
    from snellen.core.finding import Check
    from snellen.core.geometry import Size
    from snellen.core.plan import Plan
    from snellen.core.sample import Batch, Frame
    from snellen.data.elastic import ElasticField
    from snellen.data.tiles import Region
    from snellen.draw.chart import Chart
    from snellen.nn.catalog import Provenance
    from snellen.nn.detection.suppression_graph import Suppress
    from snellen.nn.placing import Placed

TargetT = TypeVar("TargetT")
AnyTargetT = TypeVar("AnyTargetT", contravariant=True)

TASKS: dict[str, str] = {
    "classification": "snellen.tasks.classification.task:Classification",
    "multilabel": "snellen.tasks.classification.task:MultiLabel",
    "regression": "snellen.tasks.regression.task:Regression",
    "detection": "snellen.tasks.detection.task:Detection",
    "segmentation": "snellen.tasks.segmentation.task:Segmentation",
    "instances": "snellen.tasks.instances.task:Instances",
}


_NOT_FOR_ALL = frozenset({"dropout", "mosaic", "copy_paste", "nms", "nms_iou", "loss_weights"})


class Metrics(Protocol[AnyTargetT]):
    """Collects predictions and truth over a whole set, then computes: never a mean of batches."""

    def update(self, predicted: Sequence[AnyTargetT], truth: Sequence[AnyTargetT]) -> None: ...

    def compute(
        self, *, intervals: bool = True, groups: Sequence[str] | None = None, seed: int = 0
    ) -> dict[str, Estimate]: ...

    def resampled(self, *, groups: Sequence[str] | None = None, seed: int = 0) -> Mapping[str, np.ndarray]:
        """Every metric in each bootstrap resample, name -> [num_resamples]: of the same resamples for every model that
        is judged on as many images, with the same ``groups`` and ``seed``."""
        ...


class Difference(NamedTuple):
    """decisions  how many things were decided: a class, labels, objects that are shown, pixels
    different  how many of them were decided otherwise
    apart      the largest difference of a number behind the rest: of a probability or score (0..1), or of a value as a
               share of its size
    shifted    how many of the different are the same thing a little elsewhere, or a little surer
    """

    decisions: int
    different: int
    apart: float
    shifted: int = 0


class Task(ABC, Generic[TargetT]):
    """One kind of question to ask of images. An instance knows the class names and how it decides, nothing else.

    name      as in TASKS
    headline  the metric, higher is better, that picks the best checkpoint and heads the report
    loss_names  what ``plan.loss`` may be, the usual one first
    parts_classes   whether images have classes, which ``fit_svm`` can tell apart
    dense     whether answers are about places in the image. Targets then lie in the pixels of the image on disk and
              move with it, batches have frames, and nothing linear stands on pooled features: no probe, no SVM
    architectures   what ``plan.architecture`` may be, the usual one first; empty: a linear head
    tile_merges     how answers for the tiles of a large image may become one, the usual way first; empty: they cannot
    tiles_and_whole  whether the whole image is looked at beside its tiles
    settings  of those that not every task has a use for (``_NOT_FOR_ALL``), which this one uses
    trivial_answer  what ``majority`` says of every image, as in "always giving ..."
    decision  turns probabilities into decisions: where images have one class, a factor on each class's probability
              before the largest is taken; where they have any number of labels, the threshold of each. Empty: no
              factors, thresholds of 0.5. What ``decode`` gives as scores stays untouched.
    """

    name: ClassVar[str]
    headline: ClassVar[str]
    loss_names: ClassVar[tuple[str, ...]]
    parts_classes: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    architectures: ClassVar[tuple[str, ...]] = ()
    tile_merges: ClassVar[tuple[str, ...]] = ()
    tiles_and_whole: ClassVar[bool] = False
    settings: ClassVar[frozenset[str]] = frozenset({"dropout"})
    trivial_answer: ClassVar[str] = "the most frequent answer"

    def __init__(self, classes: Sequence[str], decision: Sequence[float] = ()) -> None:
        self.classes, self.decision = tuple(classes), tuple(decision)
        if self.decision and len(self.decision) != len(self.classes):
            raise ValueError(f"a decision needs a number for each of {len(classes)} classes, got {len(decision)}")

    def configured(self, plan: Plan) -> Self:
        """This task with what ``plan`` says of how it answers, beside the classes."""
        return self

    # --- data

    @abstractmethod
    def target(self, record: Record) -> TargetT:
        """The truth that ``record`` states. Raises DataError when it states none of this kind."""

    def warp(self, target: TargetT, matrix: np.ndarray, size: Size, field: ElasticField | None = None) -> TargetT:
        """``target`` after ``matrix`` [3, 3], and then ``field``, brought its image to ``size``.

        Labels of whole images do not move.
        """
        return target

    def nothing(self, like: TargetT) -> TargetT:
        """The target of an image of the same size that shows nothing; only where answers are about places."""
        raise TypeError(f"the task '{self.name}' does not answer about places")

    def overlay(self, own: TargetT, other: TargetT, region: tuple[int, int, int, int]) -> TargetT:
        """``own`` after a region (x0, y0, x1, y1) of its image was covered by the same region of ``other``'s; as
        ``nothing``."""
        raise TypeError(f"the task '{self.name}' does not answer about places")

    def num_objects(self, target: TargetT) -> int:
        """How many objects ``target`` marks; 0 where it marks none one by one."""
        return 0

    def target_scale(self, train: Sequence[TargetT]) -> dict[str, Any]:
        """``target_mean`` and ``target_std`` of the plan, for targets that have a scale; else nothing."""
        return {}

    # --- learning

    @abstractmethod
    def build_model(self, plan: Plan) -> nn.Module:
        """The network, its weights still random: images [n, 3, h, w] with values 0..255 -> raw outputs.

        Its parts are ``normalize``, ``backbone`` and ``head``: all that learns is in one of the last two.
        """

    def load_weights(self, model: nn.Module, plan: Plan) -> Provenance:
        """Fill the backbone of ``model`` with the weights that ``plan`` names. Raises WeightsError."""
        from snellen.nn.backbone import load_pretrained

        backbone = model.get_submodule("backbone")
        return load_pretrained(backbone, plan.model, file=plan.weights, pretrained=plan.pretrained)

    def check_loss(self, loss: str) -> None:
        """Raises ConfigError when the task cannot minimise ``loss``."""
        if loss not in self.loss_names:
            raise ConfigError(
                f"loss = '{loss}' does not fit the task '{self.name}': use {' or '.join(self.loss_names)}"
            )

    def check_settings(self, config: Config) -> None:
        """Raises ConfigError for a setting that would do nothing here."""
        for name in sorted(_NOT_FOR_ALL - self.settings):
            given = getattr(config, name)
            if given and given not in ("auto", type(config).model_fields[name].default):  # 0 asks for nothing
                raise ConfigError(f"{name} = {given!r} does nothing for the task '{self.name}': leave it out")

    @abstractmethod
    def criterion(self, outputs: Any, batch: Batch[TargetT], plan: Plan) -> dict[str, Tensor]:
        """Named loss terms, scalars; the loop minimises their sum. Where the network itself computes them, ``losses``
        and ``assess`` do not come here."""

    def losses(self, model: nn.Module, batch: Batch[TargetT], plan: Plan) -> dict[str, Tensor]:
        """A training step's forward pass. Models that compute their loss inside ``forward`` override it."""
        outputs = model(batch.images)
        own = self.criterion(outputs, batch, plan)
        if batch.mixed is None:
            return own
        # A blend of two images has both targets, each to its share: for a cross-entropy the same as soft targets.
        others = self.criterion(outputs, replace(batch, targets=batch.mixed.partners, mixed=None), plan)
        share = batch.mixed.share
        return {name: share * loss + (1.0 - share) * others[name] for name, loss in own.items()}

    def assess(
        self, model: nn.Module, batch: Batch[TargetT], plan: Plan
    ) -> tuple[dict[str, Tensor], Sequence[TargetT]]:
        """Losses and predictions from one forward pass, for validation."""
        outputs = model(batch.images)
        return self.criterion(outputs, batch, plan), self.decode(outputs, batch.frames)

    def fit_probe(
        self, features: Tensor, targets: Sequence[TargetT], groups: Sequence[str], plan: Plan
    ) -> Mapping[str, Tensor] | None:
        """The head's weights, by name, fitted on frozen ``features`` [n, d]; None when this task has no such head.

        ``groups`` [n] names what must not be parted when the strength of the regularisation is cross-validated. Of the
        plan, ``class_weights``, ``sampling``, ``smote`` and ``seed`` count.
        """
        return None

    def fit_svm(
        self, features: Tensor, targets: Sequence[TargetT], groups: Sequence[str], plan: Plan
    ) -> Mapping[str, Tensor]:
        """As ``fit_probe``, by a linear support vector machine; only where the task ``parts_classes``."""
        raise TypeError(f"the task '{self.name}' has no classes for a support vector machine to part")

    def class_sizes(self, targets: Sequence[TargetT]) -> Sequence[float] | None:
        """How much there is of each class, where the loss can weigh classes by it: pixels. None elsewhere."""
        return None

    def numbers(self, targets: Sequence[TargetT]) -> Tensor | None:
        """float32 [n, k] for least squares to aim at: ``decode`` gives ``targets`` back. None as in ``fit_probe``."""
        return None

    # --- results

    @abstractmethod
    def decode(self, outputs: Any, frames: Sequence[Frame] = ()) -> Sequence[TargetT]:
        """Raw outputs -> one prediction an image, with scores; places in the pixels of the images on disk where
        ``frames`` say how these became the input, else in those of the input."""

    @abstractmethod
    def graph_answers(self, outputs: Any, placed: Placed, suppress: Suppress) -> dict[str, Tensor]:
        """What ``decode`` says of a batch, as named arrays and in operations that a graph can hold.

        placed    how images of the batch, all of one size, became the input: what is told is in their pixels
        suppress  non-maximum suppression as the graph's runtime has it
        """

    def graph_answers_together(
        self, outputs: Sequence[Any], placed: Sequence[Placed], suppress: Suppress, weights: Sequence[float] = ()
    ) -> dict[str, Tensor]:
        """``graph_answers`` for what several models say of the same batch, joined as ``decode_together`` does.

        placed, weights  of each of the outputs. Raises TypeError where a graph cannot join them.
        """
        if len(outputs) > 1:
            raise TypeError(f"no graph joins the answers of several models for the task '{self.name}'")
        return self.graph_answers(outputs[0], placed[0], suppress)

    @abstractmethod
    def from_graph(self, answers: Mapping[str, np.ndarray], frames: Sequence[Frame]) -> Sequence[TargetT]:
        """Back from ``graph_answers`` to a prediction for each image; needs no torch. Raises KeyError for what it did
        not give."""

    @abstractmethod
    def difference(self, one: TargetT, other: TargetT) -> Difference:
        """How far two predictions for one image are apart: those of a network and of what was exported from it."""

    @abstractmethod
    def metrics(self) -> Metrics[TargetT]: ...

    @abstractmethod
    def majority(self, train: Sequence[TargetT], num: int) -> Sequence[TargetT]:
        """What the trivial baseline predicts for ``num`` images: the same for each, learnt from ``train`` alone."""

    def fit_decision(
        self, predicted: Sequence[TargetT], truth: Sequence[TargetT]
    ) -> tuple[tuple[float, ...], str] | None:
        """The ``decision`` that serves best on validation images, and a sentence about it; None where the rule of the
        task needs none, or is fitted by train/decision.py."""
        return None

    @abstractmethod
    def mistakes(self, predicted: Sequence[TargetT], truth: Sequence[TargetT], limit: int) -> list[dict[str, Any]]:
        """The most confident errors first: index, truth, predicted (text) and confidence (0..1)."""

    @abstractmethod
    def arrays(self, predicted: Sequence[TargetT], truth: Sequence[TargetT]) -> dict[str, np.ndarray]:
        """What is written to predictions/ so that anyone can recompute the metrics."""

    @abstractmethod
    def read_arrays(self, arrays: Mapping[str, np.ndarray]) -> tuple[Sequence[TargetT], Sequence[TargetT]]:
        """The predictions and the truth back from what ``arrays`` made. Raises KeyError for what it did not make."""

    def in_order(self, outputs: Any, order: Sequence[int]) -> Any:
        """Raw outputs of a model whose classes are in another order -> in the order of this task's: its class i was
        ``order[i]``."""
        return outputs[:, list(order)]

    @abstractmethod
    def decode_together(
        self, outputs: Sequence[Any], frames: Sequence[Sequence[Frame]] = (), weights: Sequence[float] = ()
    ) -> Sequence[TargetT]:
        """Raw outputs of several models, or for several views, of the same n images -> one prediction an image.

        outputs  each of them is what ``decode`` takes, for n images
        frames   those of each of the outputs, n in each; empty where the task is not ``dense``
        weights  what each of the outputs counts, 0 or more; empty: all alike

        What they say in the mean, as ``decode`` tells it. Input sizes and frames may differ: answers about places are
        brought together in the pixels of the image on disk. ValueError for weights that ``shares_of`` refuses.
        """

    def merging(self, way: str | None) -> str:
        """How answers for tiles are merged: ``way``, or the usual one. Raises ConfigError where the task cannot."""
        if not self.tile_merges:
            raise ConfigError(f"the task '{self.name}' cannot merge the answers for tiles of an image: leave out tile")
        if way is not None and way not in self.tile_merges:
            raise ConfigError(
                f"tile_merge = '{way}' does not fit the task '{self.name}': use {' or '.join(self.tile_merges)}"
            )
        return way or self.tile_merges[0]

    def merge(self, parts: Sequence[TargetT], regions: Sequence[Region], size: Size, way: str) -> TargetT:
        """The answers for parts of an image of ``size``, each in the pixels of its part, as one for the image.

        regions  where the parts lie: ``Tiling.regions``; the last is the whole image if ``tiles_and_whole``
        way      what ``merging`` gave
        """
        raise TypeError(f"the task '{self.name}' cannot merge the answers for tiles of an image")

    @abstractmethod
    def describe(self, predicted: TargetT) -> dict[str, Any]:
        """A prediction as JSON-able fields: label, confidence, probabilities."""

    @abstractmethod
    def caption(self, target: TargetT) -> str:
        """A few words that say what ``target`` is."""

    @abstractmethod
    def draw(self, image: np.ndarray, target: TargetT) -> Image.Image:
        """The image uint8 [H, W, 3] with the target drawn on it."""

    def draw_mistake(self, image: np.ndarray, truth: TargetT, predicted: TargetT) -> Image.Image | None:
        """Truth and prediction beside each other; None where words are enough."""
        return None

    def charts(self, arrays: Mapping[str, np.ndarray]) -> list[Chart]:
        """Pictures of the results, from what ``arrays`` wrote."""
        return []

    def checks(self) -> Sequence[Check[Any]]:
        """This task's own checks of the data, beside those that hold for every task."""
        return ()


def shares_of(weights: Sequence[float], count: int) -> tuple[float, ...]:
    """``weights`` of ``count`` things as shares that add up to 1; without weights all are alike.

    ValueError for another number of them, for a negative one, and where all are 0.
    """
    given = tuple(weights) or (1.0,) * count
    total = sum(given)
    if len(given) != count or not min(given, default=0.0) >= 0 or not 0 < total < float("inf"):
        raise ValueError(f"{count} weights of 0 or more are needed, not all of them 0, got {list(weights)}")
    return tuple(weight / total for weight in given)


def create_task(name: str, classes: Sequence[str], decision: Sequence[float] = ()) -> Task[Any]:
    """Raises ConfigError for an unknown name, with the nearest known one. ``decision`` as in Task."""
    return _kind(name)(classes, decision)


def is_dense(name: str) -> bool:
    """Whether the task of that name answers about places in the image. Raises ConfigError as ``create_task``."""
    return _kind(name).dense


def _kind(name: str) -> type[Task[Any]]:
    if name not in TASKS:
        raise ConfigError(f"task = '{name}' is not known{did_you_mean(name, TASKS)}")
    module, _, attribute = TASKS[name].partition(":")
    kind: type[Task[Any]] = getattr(import_module(module), attribute)
    return kind
