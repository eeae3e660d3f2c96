"""A graph in 8-bit arithmetic, by static quantisation: the network's layers, and nothing around them.

Weights have a scale for each output channel, activations one for the tensor, learnt from training images (Jacob et al.,
'Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference', 2018). The placement of
the image and the decoding of what the network says stay in single precision: they are cheap, and exact on purpose.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.device import available_cores
from snellen.core.errors import ConfigError
from snellen.data.image import decode

_LAYERS = ("Conv", "Gemm", "MatMul")
_BOUNDS, _SUM = ("Clip", "Relu"), "Add"  # quantised with the layers, so that nothing goes to floats and back between
_CHOOSING = ("TopK", "NonMaxSuppression")
_RANKED_BY = 8  # images that tell which layers 8 bits harm most
_ERROR = 0.01  # of the variance of what the last layers say: see docs/measurements.md
_LEFT_OUT = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)

Range = tuple[float, float]


def attempts(proto: Any, calibration: Sequence[Path]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Every layer but the last ones quantised, if what the last ones say stays nearly the same; else, and while more
    are asked for, without those that 8 bits harm most.

    proto        ``onnx.ModelProto`` of a whole graph, from pixels to answers
    calibration  training images; their activations give the ranges, and one image at a time is in memory

    The last layers say what is decided by: a range cuts off the best scores, and their order is lost (a detector of
    cells fell from 0.338 to 0.298 mAP by them alone). Gives graphs of the same kind, each with the names of the other
    layers that stay in single precision: at most half. Raises ConfigError for a network that is not to be quantised.
    """
    graph = _prepared(proto)
    ends = _ends(graph)
    layers = [name for name in _layers(graph) if name not in ends]
    if not layers:
        raise ConfigError("precision = 'int8' leaves nothing of a network that is all last layers: use fp32")
    _check_none_choose(graph)
    ranges = _ranges(graph, layers, calibration)
    error = _error_of(graph, calibration[:: max(1, len(calibration) // _RANKED_BY)][:_RANKED_BY])
    counts = [count for count in _LEFT_OUT if count <= len(layers) // 2]
    worst: list[str] = []
    for count in counts:
        if count and not worst:
            harm = {name: error(_quantised(graph, [name], ranges)) for name in layers}
            worst = sorted(harm, key=lambda name: -harm[name])
        left_out = tuple(worst[:count])
        quantised = _quantised(graph, [name for name in layers if name not in left_out], ranges)
        if count == counts[-1] or error(quantised) <= _ERROR:
            yield quantised, left_out


def _prepared(proto: Any) -> Any:
    """With the types of all tensors, and constants computed."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _quiet():
        given, out = Path(folder) / "given.onnx", Path(folder) / "prepared.onnx"
        given.write_bytes(proto.SerializeToString())
        quant_pre_process(given, out, skip_symbolic_shape=True)
        return onnx.load(str(out))


def _layers(graph: Any) -> list[str]:
    """Those nodes that multiply by weights, in order: the network's, as nothing else in a graph has weights."""
    weights = {each.name for each in graph.graph.initializer}
    return [node.name for node in graph.graph.node if node.op_type in _LAYERS and node.input[1] in weights]


def _check_none_choose(graph: Any) -> None:
    """Raises ConfigError where layers look at what earlier ones chose, as those of R-CNNs and DETRs do: with a few
    regions in another order, or one more of them, nothing can be compared any more."""
    chosen, layers = set[str](), set(_layers(graph))
    for node in graph.graph.node:
        follows = any(name in chosen for name in node.input)
        if follows and node.name in layers:
            raise ConfigError(
                "precision = 'int8' is not for networks whose later layers look at the regions that earlier ones "
                "chose, as R-CNNs and DETRs do: use fp32, or train the architecture dense"
            )
        if follows or node.op_type in _CHOOSING:
            chosen.update(node.output)


def _joints(graph: Any, layers: Sequence[str]) -> list[str]:
    """Nodes that go with these layers: what bounds the answer of one, and sums that lead on to another.

    The rounding of a bounded answer is that of the bounds; unbounded, most of the 256 steps would be spent beyond them.
    """
    before: set[str] = set()
    for node in reversed(graph.graph.node):
        if node.name in layers or any(name in before for name in node.output):
            before.update(node.input)
    given, joints = set[str](), []
    for node in graph.graph.node:
        directly = any(name in given for name in node.input)
        joint = directly and (node.op_type in _BOUNDS or (node.op_type == _SUM and node.output[0] in before))
        if joint:
            joints.append(node.name)
        if joint or node.name in layers:
            given.update(node.output)
    return joints


def _quantised(graph: Any, layers: Sequence[str], ranges: Mapping[str, Range]) -> Any:
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    known = {name: tuple(np.float32(end) for end in ends) for name, ends in ranges.items()}
    quantizer = QDQQuantizer(
        copy.deepcopy(graph),
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, known),
        nodes_to_quantize=[*layers, *_joints(graph, layers)],
        nodes_to_exclude=[],
        op_types_to_quantize=[*_LAYERS, *_BOUNDS, _SUM],
        extra_options={},
    )
    with _quiet():
        return _sorted(quantizer.quantize_model())


def _sorted(proto: Any) -> Any:
    """With every node behind those that it needs, as the format asks for: the quantiser adds its own at the end."""
    known = {each.name for each in (*proto.graph.initializer, *proto.graph.input)} | {""}
    waiting, found = [(node, _needed(node)) for node in proto.graph.node], []
    while waiting:
        later = []
        for node, needed in waiting:
            if needed <= known:
                found.append(node)
                known.update(node.output)
            else:
                later.append((node, needed))
        assert len(later) < len(waiting), f"a circle of {len(later)} nodes"
        waiting = later
    nodes = [copy.deepcopy(node) for node in found]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def _needed(node: Any) -> set[str]:
    """The tensors that it takes, and those that branches and loops in it take from around them."""
    needed = set(node.input)
    for inner in (each.g for each in node.attribute if each.HasField("g")):
        own = {each.name for each in (*inner.initializer, *inner.input)}
        own |= {name for each in inner.node for name in each.output}
        taken = set().union(*map(_needed, inner.node), (each.name for each in inner.output))
        needed |= taken - own
    return needed


def _ranges(graph: Any, layers: Sequence[str], calibration: Sequence[Path]) -> dict[str, Range]:
    """What each activation reaches: the mean over images of its smallest and largest value.

    The extremes of all images would spend most of the 256 steps on a few outliers, and percentiles cut off too much
    (docs/measurements.md).
    """
    wanted = _activations(graph, [*layers, *_joints(graph, layers)])
    run = _run_with(graph, wanted)
    ends = np.array([[(x.min(), x.max()) for x in run(decode(path))] for path in calibration])
    low, high = ends.mean(0).T
    return {name: (min(0.0, float(a)), max(0.0, float(b))) for name, a, b in zip(wanted, low, high, strict=True)}


def _activations(graph: Any, names: Sequence[str]) -> list[str]:
    """The tensors that the named nodes take and give, without weights."""
    weights = {each.name for each in graph.graph.initializer}
    found = [name for node in graph.graph.node if node.name in names for name in (*node.input, *node.output) if name]
    return [name for name in dict.fromkeys(found) if name not in weights]


def _run_with(graph: Any, outputs: Sequence[str]) -> Callable[[NDArray[np.uint8]], list[NDArray[Any]]]:
    """An image -> these tensors of the graph."""
    import onnx
    import onnxruntime

    small = onnx.ModelProto()
    small.CopyFrom(graph)
    del small.graph.output[:]
    small.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = available_cores(), 3
    loaded = onnxruntime.InferenceSession(small.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda image: list(loaded.run(list(outputs), {"image": image[None]}))


def _error_of(graph: Any, paths: Sequence[Path]) -> Callable[[Any], float]:
    """A quantised graph -> how far its last layers are from those of ``graph``: the mean square of the difference as a
    share of the variance of what they say, the mean over them."""
    images = [decode(path) for path in paths]
    ends = list(_ends(graph).values())

    def said(of: Any) -> list[NDArray[Any]]:
        run = _run_with(of, ends)
        return [np.concatenate([each.ravel() for each in told]) for told in zip(*map(run, images), strict=True)]

    right = said(graph)

    def error(of: Any) -> float:
        pairs = zip(said(of), right, strict=True)
        return float(np.mean([((a - b) ** 2).mean() / (b.var() + 1e-12) for a, b in pairs]))

    return error


def _ends(graph: Any) -> dict[str, str]:
    """The layers whose answer no other layer takes up, and the tensor that each gives."""
    layers = set(_layers(graph))
    before: set[str] = set()
    ends = {}
    for node in reversed(graph.graph.node):  # they are in an order in which they can be computed
        taken = bool(before.intersection(node.output))
        if node.name in layers and not taken:
            ends[node.name] = node.output[0]
        if node.name in layers or taken:
            before.update(node.input)
    return ends


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser's advice is for those who call it by hand."""
    import onnxruntime

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    onnxruntime.set_default_logger_severity(3)  # errors; it cannot be asked what it was, and 2 is its own choice
    try:
        yield
    finally:
        logging.disable(before)
        onnxruntime.set_default_logger_severity(2)
