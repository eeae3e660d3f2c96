"""The part about how good the model is: the verdict, every number with its interval, and the mistakes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from snellen.core.errors import RunError
from snellen.draw.chart import Chart
from snellen.report.album import MISTAKES_BYTES, SCENES_BYTES, Album
from snellen.report.source import Json, Source
from snellen.report.wording import SPLIT_NAMES, Reading, confidence, metric_meaning, metric_name, reading, words_of
from snellen.tasks.base import create_task

MAX_MISTAKES, MAX_SCENES = 24, 12  # scenes are large pictures
MAX_CLASS_ROWS = 100
SELDOM_READ = ("_micro", "_weighted", "mar1", "mar10", "mar_small", "mar_medium", "mar_large")
_NO_READING = Reading("–", "", "")


MetricRow = tuple[str, str, tuple[Reading, ...]]


@dataclass(frozen=True, slots=True)
class Headline:
    """The number that heads the page, and the same number of the baselines. ``rows`` begin with the model itself."""

    metric: str
    split: str
    note: str
    rows: tuple[tuple[str, Reading], ...]

    @property
    def reading(self) -> Reading:
        return self.rows[0][1]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """One split: a row for each metric (name, meaning), a cell for each of ``models``.

    ``more`` are the rows that few need: other ways to average the same decisions.
    """

    split: str
    models: tuple[str, ...]
    rows: tuple[MetricRow, ...]
    more: tuple[MetricRow, ...]


@dataclass(frozen=True, slots=True)
class ClassTable:
    """The classes, the worst first; ``num_hidden`` better ones are not in ``rows``."""

    split: str
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Reading, ...]], ...]
    num_hidden: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong answer. ``sure`` says how sure the model was of it, or how far off it is."""

    id: str
    truth: str
    predicted: str
    sure: str
    picture: Markup | None


def headline(source: Source) -> Headline | None:
    """None when there are no results, or none of the metric that is to head the page."""
    metric, split = str(source.results.get("headline") or "accuracy"), source.headline_split
    rows = tuple(
        (model, reading(metric, numbers[metric]))
        for model, numbers in _models(source, split).items()
        if metric in numbers
    )
    if not rows or rows[0][0] != _own_name(source):
        return None
    if split == "test":
        note = "The model never saw these images, and nothing was chosen by them."
    else:
        note = "These images also chose the model, so the number is slightly optimistic."
    return Headline(metric_name(metric), SPLIT_NAMES.get(split, split), note, rows)


def _own_name(source: Source) -> str:
    return "This model (the linear probe)" if source.results.get("shipped") == "linear probe" else "This model"


def _models(source: Source, split: str) -> dict[str, Json]:
    """The numbers on ``split``: of the model, then of each baseline."""
    models: dict[str, Json] = {}
    own = (source.results.get("splits") or {}).get(split)
    if own:
        models[_own_name(source)] = own
    for name, splits in sorted((source.results.get("baselines") or {}).items()):
        if numbers := (splits or {}).get(split):
            models[words_of(source.task).guessing if name == "majority" else name.capitalize()] = numbers
    return models


def result_tables(source: Source) -> list[ResultTable]:
    """The split of the headline first."""
    splits = source.results.get("splits") or {}
    return [_result_table(source, split) for split in sorted(splits, key=lambda split: split != source.headline_split)]


def _result_table(source: Source, split: str) -> ResultTable:
    models = _models(source, split)
    first = str(source.results.get("headline") or "accuracy")
    metrics = [
        name for name in dict.fromkeys(name for numbers in models.values() for name in numbers) if "/" not in name
    ]
    metrics.sort(key=lambda name: name != first)

    def row(metric: str) -> MetricRow:
        cells = [reading(metric, each[metric]) if metric in each else _NO_READING for each in models.values()]
        return metric_name(metric), metric_meaning(metric), tuple(cells)

    more = [metric for metric in metrics if metric.endswith(SELDOM_READ) and metric != first]
    rows = tuple(row(metric) for metric in metrics if metric not in more)
    return ResultTable(SPLIT_NAMES.get(split, split), tuple(models), rows, tuple(map(row, more)))


def class_table(source: Source) -> ClassTable | None:
    """Metrics named ``recall/<class>`` on the split of the headline. None when there are none."""
    numbers: Mapping[str, Any] = (source.results.get("splits") or {}).get(source.headline_split) or {}
    classes: dict[str, dict[str, Any]] = {}
    for name, estimate in numbers.items():
        metric, slash, of_class = name.partition("/")
        if slash:
            classes.setdefault(of_class, {})[metric] = estimate
    if not classes:
        return None
    metrics = tuple(dict.fromkeys(metric for each in classes.values() for metric in each))
    order = "f1" if "f1" in metrics else metrics[0]
    worst = sorted(classes.items(), key=lambda item: item[1][order]["value"] if order in item[1] else 2.0)
    rows = tuple(
        (name, tuple(reading(metric, each[metric]) if metric in each else _NO_READING for metric in metrics))
        for name, each in worst[:MAX_CLASS_ROWS]
    )
    split = SPLIT_NAMES.get(source.headline_split, source.headline_split)
    return ClassTable(split, tuple(map(metric_name, metrics)), rows, max(0, len(worst) - MAX_CLASS_ROWS))


def mistakes(source: Source) -> list[Mistake]:
    """The most confident or the largest first, at most 24; of large pictures 12, as many as there is room for."""
    album = Album(source.folder / "pictures", SCENES_BYTES if source.dense else MISTAKES_BYTES)
    found = []
    for fields in (source.results.get("mistakes") or ())[: MAX_SCENES if source.dense else MAX_MISTAKES]:
        picture = fields.get("picture")
        found.append(
            Mistake(
                id=str(fields.get("id", "")),
                truth=_label(fields.get("truth")),
                predicted=_label(fields.get("predicted")),
                sure=_sure(fields),
                picture=album.picture(str(picture), 1056 if source.dense else 240) if picture else None,
            )
        )
    return [each for each in found if each.picture is not None] or found if album.refused else found


def _sure(fields: Mapping[str, Any]) -> str:
    if fields.get("off") is not None:
        return f"{fields['off']} {fields['unit']}" if "unit" in fields else f"off by {fields['off']}"
    return "" if fields.get("confidence") is None else confidence(float(fields["confidence"]))


def _label(value: Any) -> str:
    """The class name, or the several of a multi-label answer."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "nothing"
    return str(value)


def prediction_charts(source: Source) -> list[Chart]:
    """What the task draws from the saved predictions of the headline's split; none when they are not there.

    Raises RunError when the file is damaged, or does not fit the classes; ConfigError for a task not known here.
    """
    path = source.folder / "predictions" / f"{source.headline_split}.safetensors"
    if not (source.headline_split and source.classes and path.is_file()):
        return []
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return create_task(source.task, source.classes).charts(load_file(path))
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise RunError(f"{path} is damaged: {error}; run 'snellen evaluate' on this run again") from None
