"""What an artifact says of itself: enough to use it without the run, and without Snellen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from snellen.core.errors import RunError
from snellen.core.estimate import Estimate
from snellen.core.plan import Plan
from snellen.tasks.base import Task, create_task

ARTIFACT_VERSION = 1
Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["fp32", "bf16", "int8"]

FILES: Mapping[Format, str] = {"onnx": "model.onnx", "openvino": "model.xml", "torch": "model.pt2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """format     of the model's file
    precision  the arithmetic that was verified and that it is run in
    plan       of the run: task, classes, preprocessing, network; of several networks that of the first, with the
               preprocessing that shows least of an image
    members    of several networks that answer together: ``model``, ``input_size``, ``fit``, ``weight`` (all of them 1),
               ``weights_source`` and ``weights_license`` of each; else nothing
    decision   of the task (tasks/base.py): how its probabilities become decisions; empty: as usual
    headline   the name of the metric that counts
    metrics    of the run, by split; checked: of the artifact, on the images that it was verified on
    weaknesses of the run's findings, those that tell what is wrong with the data or the model: code, severity, message
    outputs    what the graph gives, by name: a sentence about shape and meaning
    versions   of what made it
    """

    format: Format
    precision: Precision
    plan: Plan
    decision: tuple[float, ...]
    headline: str
    metrics: Mapping[str, Mapping[str, Estimate]]
    checked: Mapping[str, Any] = field(default_factory=dict)
    weaknesses: tuple[Mapping[str, Any], ...] = ()
    members: tuple[Mapping[str, Any], ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def task(self) -> Task[Any]:
        return create_task(self.plan.task, self.plan.classes, self.decision).configured(self.plan)

    @property
    def file(self) -> str:
        return FILES[self.format]

    def to_json(self) -> dict[str, Any]:
        """``use`` is for those who know nothing of Snellen; everything in it is in the rest as well."""
        plan = self.plan.to_json()
        metrics = {split: {n: e.to_json() for n, e in sides.items()} for split, sides in self.metrics.items()}
        told = {name: value for name, value in asdict(self).items() if name not in ("plan", "metrics", "decision")}
        return {
            "version": ARTIFACT_VERSION,
            "use": self.use(),
            **told,
            "decision": list(self.decision),
            "weaknesses": [dict(each) for each in self.weaknesses],
            "members": [dict(each) for each in self.members],
            "metrics": metrics,
            "plan": {"version": plan["version"], "choices": plan["choices"], "reasons": {}},
        }

    def use(self) -> dict[str, Any]:
        """Input, classes and thresholds in plain words."""
        task = self.task
        thresholds = getattr(task, "thresholds", None)
        return {
            "task": self.plan.task,
            "classes": list(self.plan.classes),
            "input": "image: uint8 [images, height, width, 3], RGB, upright (EXIF orientation applied), any size",
            "outputs": dict(self.outputs),
            **({"thresholds": list(thresholds)} if thresholds is not None else {}),
            "preprocessing": {**self.plan.preprocessing.to_json(), "where": "in the graph"},
            **({"members": [dict(each) for each in self.members]} if self.members else {}),
        }

    @classmethod
    def from_json(cls, content: Any) -> Manifest:
        """Raises RunError for what is no manifest, or one of a newer version."""
        try:
            if content["version"] > ARTIFACT_VERSION:
                raise RunError(
                    f"the artifact has format version {content['version']}, newer than the {ARTIFACT_VERSION} that "
                    "this Snellen reads: update Snellen"
                )
            metrics = {
                split: {name: Estimate.from_json(fields) for name, fields in sides.items()}
                for split, sides in content["metrics"].items()
            }
            if content["format"] not in FILES or content["precision"] not in get_args(Precision):
                raise ValueError(f"format {content['format']!r} in {content['precision']!r} is not known")
            made = cls(
                format=content["format"],
                precision=content["precision"],
                plan=Plan.from_json(content["plan"]),
                decision=tuple(content["decision"]),
                headline=content["headline"],
                metrics=metrics,
                checked=content["checked"],
                weaknesses=tuple(content["weaknesses"]),
                members=tuple(content.get("members", ())),  # older files have none
                outputs=content["outputs"],
                versions=content["versions"],
            )
            _ = made.task  # a task that is not known, or a decision that does not fit it
            return made
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"the artifact's manifest is damaged: {error!r}") from None

    def to_text(self) -> str:
        return json.dumps(self.to_json(), ensure_ascii=False, allow_nan=False, indent=1)

    @classmethod
    def from_text(cls, text: str) -> Manifest:
        """Raises RunError as ``from_json``."""
        try:
            return cls.from_json(json.loads(text))
        except json.JSONDecodeError as error:
            raise RunError(f"the artifact's manifest is damaged: {error}") from None
