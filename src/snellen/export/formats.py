"""The formats that a model can be exported to: how each is built, saved and described."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snellen.core.errors import ConfigError
from snellen.core.files import replace_atomically, write_bytes
from snellen.export.graph import Graph
from snellen.export.manifest import Format, Manifest, Precision
from snellen.export.members import Model
from snellen.export.reference import Reference
from snellen.export.runtimes import Answers, Run, check_bf16, open_onnx, open_openvino
from snellen.export.stages import which_differs
from snellen.nn.detection.suppression_graph import suppressed

_KEY = "snellen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """build       a model -> whatever ``save`` takes, and a sentence for each answer by name
    save        to a file, in a precision, and otherwise each time that another is asked for; gives the names of the
                layers that are not in it; the paths are of images for 8-bit arithmetic to learn its ranges from
    describe    put the manifest into the file itself, where the format has a place for it
    blame       which stage differs: a sentence
    precisions  that it can be saved in
    """

    build: Callable[[Model], tuple[Any, dict[str, str]]]
    save: Callable[[Any, Path, Precision, Sequence[Path]], Iterator[tuple[str, ...]]]
    describe: Callable[[Path, Manifest], None]
    blame: Callable[[Reference, Any, Sequence[NDArray[np.uint8]]], str]
    precisions: tuple[Precision, ...] = ("fp32",)


def _build_onnx(model: Model) -> tuple[Any, dict[str, str]]:
    from snellen.export.onnx_graph import onnx_model, suppress

    graph = Graph(model, suppress).eval()
    return onnx_model(graph), _outputs(graph)


def _save_onnx(proto: Any, file: Path, precision: Precision, calibration: Sequence[Path]) -> Iterator[tuple[str, ...]]:
    for variant, left_out in _variants(proto, precision, calibration):
        write_bytes(file, variant.SerializeToString())
        yield left_out


def _variants(proto: Any, precision: Precision, calibration: Sequence[Path]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Graphs in a precision, the first of which that is good enough is taken."""
    if precision != "int8":
        return iter([(proto, ())])
    from snellen.export.quantization import attempts

    return attempts(proto, calibration)


def _describe_onnx(file: Path, manifest: Manifest) -> None:
    import onnx

    proto = onnx.load(str(file))
    onnx.helper.set_model_props(proto, {_KEY: manifest.to_text(), "task": manifest.plan.task})
    proto.producer_name, proto.doc_string = "snellen", f"{manifest.plan.task}: {', '.join(manifest.plan.classes[:20])}"
    write_bytes(file, proto.SerializeToString())


def _save_openvino(
    proto: Any, file: Path, precision: Precision, calibration: Sequence[Path]
) -> Iterator[tuple[str, ...]]:
    from snellen.export.openvino_graph import save

    for variant, left_out in _variants(proto, precision, calibration):
        save(variant, file)
        yield left_out


def _describe_openvino(file: Path, manifest: Manifest) -> None:
    from snellen.export.openvino_graph import describe

    describe(file, manifest)


def _blame(
    reference: Reference, built: Any, images: Sequence[NDArray[np.uint8]], *, opened: Callable[..., Run] = open_onnx
) -> str:
    from snellen.export.onnx_graph import suppress, traced

    def build(module: nn.Module, name: str, example: Tensor) -> Callable[[NDArray[Any]], Answers]:
        free = {0: torch.export.Dim("images")}
        if name == "image":
            free |= {1: torch.export.Dim("height"), 2: torch.export.Dim("width")}
        return opened(traced(module, name, example, free).SerializeToString(), "fp32", 1, name)

    return which_differs(reference, Graph(reference.model, suppress).eval(), images, build)


def _build_torch(model: Model) -> tuple[Any, dict[str, str]]:
    from snellen.export.onnx_graph import FREE, example, exported

    graph = Graph(model, suppressed).eval()
    return exported(graph, example(), FREE), _outputs(graph)


def _save_torch(
    program: Any, file: Path, precision: Precision, calibration: Sequence[Path]
) -> Iterator[tuple[str, ...]]:
    # A suffix that torch insists on, beside the name that is put in place.
    def write(temporary: Path) -> None:
        named = temporary.with_name(temporary.name + ".pt2")
        with warnings.catch_warnings():  # weights that lie channels last are saved with their strides, and read back
            warnings.filterwarnings("ignore", "No complete tensor found")
            torch.export.save(program, named)
        named.replace(temporary)

    replace_atomically(file, write)
    yield ()


def _in_the_manifest_alone(file: Path, manifest: Manifest) -> None:
    """The file has no place for it, or needs none."""


def _outputs(graph: Graph) -> dict[str, str]:
    from snellen.export.onnx_graph import example

    with torch.no_grad():
        said = graph(example())
    return {name: f"{str(values.dtype).removeprefix('torch.')}: {_MEANING[name]}" for name, values in said.items()}


_MEANING: Mapping[str, str] = {
    "probabilities": "[images, classes], the probability of each class",
    "label": "[images], the class that is decided for",
    "present": "[images, classes], which labels are decided for",
    "values": "[images, outputs], the numbers in the order of 'classes'",
    "classes": "[images, height, width], the class of each pixel of the image",
    "confidence": "[images, classes], mean probability of a class over the pixels that were given to it",
    "boxes": "[objects, 4], left, top, right, bottom in pixels of the image",
    "scores": "[objects], 0..1; those from the threshold of their class on are worth showing",
    "labels": "[objects], the class of each",
    "image_index": "[objects], which image of the call each is in",
    "mask_logits": "[objects, h, w] over the network's input: above 0, and within its box, is the object",
}

FORMATS: Mapping[Format, Kind] = {
    "onnx": Kind(
        build=_build_onnx, save=_save_onnx, describe=_describe_onnx, blame=_blame, precisions=("fp32", "int8")
    ),
    "openvino": Kind(
        build=_build_onnx,
        save=_save_openvino,
        describe=_describe_openvino,
        blame=partial(_blame, opened=open_openvino),
        precisions=("fp32", "bf16", "int8"),
    ),
    "torch": Kind(build=_build_torch, save=_save_torch, describe=_in_the_manifest_alone, blame=_blame),
}


def check_precision(to: str, precision: str) -> None:
    """Raises ConfigError for a format that is not known, or that has no such precision, here or at all."""
    from snellen.core.errors import did_you_mean

    if to not in FORMATS:
        raise ConfigError(f"to = '{to}' is no format that a model can be exported to{did_you_mean(to, FORMATS)}")
    if precision not in FORMATS[to].precisions:  # type: ignore[index]
        known = ", ".join(FORMATS[to].precisions)  # type: ignore[index]
        raise ConfigError(f"precision = '{precision}' is not there for {to}: use {known}")
    if precision == "bf16":
        check_bf16()
