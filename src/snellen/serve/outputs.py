"""What a model answers as tensors of the Open Inference Protocol, by its task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from snellen.serve.refusal import Refusal
from snellen.serve.tensors import Tensor
from snellen.tasks.base import Task

Values = np.ndarray | list[bytes]

DATATYPES: Mapping[str, str] = {
    "UINT8": "TYPE_UINT8",
    "INT64": "TYPE_INT64",
    "FP32": "TYPE_FP32",
    "BYTES": "TYPE_STRING",
}  # the protocol's own names, and those of Triton's configuration


@dataclass(frozen=True, slots=True)
class Output:
    """One tensor of an answer.

    shape   -1 where the request decides, 'classes' for the number of classes (or of values)
    values  (task, a target an image) -> what the tensor holds
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...]
    values: Callable[[Task[Any], Sequence[Any]], Values]

    def tensor(self, task: Task[Any], targets: Sequence[Any]) -> Tensor:
        return Tensor(self.name, self.datatype, self.values(task, targets))

    def described(self, task: Task[Any]) -> dict[str, Any]:
        """As the metadata of a model have it."""
        shape = [len(task.classes) if n == "classes" else n for n in self.shape]
        return {"name": self.name, "datatype": self.datatype, "shape": shape}


def _answers(task: Task[Any], targets: Sequence[Any]) -> list[bytes]:
    return [json.dumps(task.describe(target), allow_nan=False).encode() for target in targets]


def _scores(task: Task[Any], targets: Sequence[Any]) -> np.ndarray:
    return np.array([target.scores for target in targets], np.float32)


def _numbers(task: Task[Any], targets: Sequence[Any]) -> np.ndarray:
    return np.array([target.values for target in targets], np.float32)


def _of_objects(field: str, datatype: type, *row: int) -> Callable[[Task[Any], Sequence[Any]], np.ndarray]:
    """A column of all objects that are shown, one image after another."""

    def values(task: Any, targets: Sequence[Any]) -> np.ndarray:
        columns = [getattr(target.above(task.thresholds), field) for target in targets]
        return np.concatenate([np.zeros((0, *row), datatype), *columns]).astype(datatype)

    return values


def _image_index(task: Any, targets: Sequence[Any]) -> np.ndarray:
    return np.repeat(np.arange(len(targets)), [len(target.above(task.thresholds)) for target in targets])


def _class_maps(task: Task[Any], targets: Sequence[Any]) -> np.ndarray:
    sizes = {target.size for target in targets}
    if len(sizes) > 1:
        raise Refusal(
            400, "images of different sizes have no one tensor 'classes': send them apart, or ask for 'answer' only"
        )
    return np.stack([target.array for target in targets])


ANSWER = Output("answer", "BYTES", (-1,), _answers)
_PROBABILITIES = (Output("probabilities", "FP32", (-1, "classes"), _scores),)
_OBJECTS = (
    Output("boxes", "FP32", (-1, 4), _of_objects("boxes", np.float32, 4)),
    Output("scores", "FP32", (-1,), _of_objects("scores", np.float32)),
    Output("labels", "INT64", (-1,), _of_objects("labels", np.int64)),
    Output("image_index", "INT64", (-1,), _image_index),
)
_BY_TASK: Mapping[str, Sequence[Output]] = {
    "classification": _PROBABILITIES,
    "multilabel": _PROBABILITIES,
    "regression": (Output("values", "FP32", (-1, "classes"), _numbers),),
    "detection": _OBJECTS,
    "instances": _OBJECTS,
    "segmentation": (Output("classes", "UINT8", (-1, -1, -1), _class_maps),),
}


def outputs_of(task: Task[Any]) -> dict[str, Output]:
    """By name, in the order of an answer: ``answer``, JSON of ``Task.describe`` for each image, and what the task
    tells in numbers."""
    return {output.name: output for output in (ANSWER, *_BY_TASK.get(task.name, ()))}
