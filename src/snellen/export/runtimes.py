"""The runtimes that artifacts are run by: a file in, a function from pixels to named answers out.

Each is imported when it is first needed; none but 'torch' imports torch.
"""

from __future__ import annotations

import math
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.device import available_cores
from snellen.core.errors import ConfigError, RunError
from snellen.export.manifest import Format, Precision

Answers = dict[str, NDArray[Any]]
Run = Callable[[NDArray[np.uint8]], Answers]
"""uint8 [n, H, W, 3] -> the named answers of the graph."""

_LARGE = 16 * 2**20  # bytes of pixels in one call
_LONG = 4096  # pixels of a side: the tables of the resize are as long


def session(
    path: Path, format: Format, precision: Precision = "fp32", *, threads: int | None = None, streams: int = 1
) -> Run:
    """Load a model's file. Raises RunError when it cannot be, ConfigError when its runtime is not installed.

    threads  of all calls together; as many as there are cores by default. The precision is a declared choice: OpenVINO
             would take bf16 by itself where the CPU has it, and move logits by up to 0.3.
    streams  calls at once, among which threads are divided
    """
    try:
        return _OPENERS[format](path, precision, threads or available_cores(), streams=streams)
    except ImportError as error:
        raise not_installed(format, path.name, error) from None


def streams_of(format: Format, threads: int) -> int:
    """Calls at once that do the most images a second together, where no single one may take much longer: threads of one
    call wait for each other. On two cores, two calls of one thread each take half of the processor's time an image."""
    return 1 if format == "torch" else math.ceil(math.sqrt(threads))


def not_installed(format: Format, what: str, error: ImportError) -> ConfigError:
    return ConfigError(f"{what} needs {error.name}, which is not installed: pip install 'snellen[{_EXTRA[format]}]'")


def open_onnx(
    source: Path | bytes, precision: Precision, threads: int, given: str = "image", *, streams: int = 1
) -> Run:
    """A file, or its bytes; ``given`` is the name of its input."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = math.ceil(threads / streams)  # its own guess ignores the limits of a container
    if streams > 1:  # threads that spin while they wait would take the cores of another call
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    what = source if isinstance(source, bytes) else str(source)
    try:
        loaded = onnxruntime.InferenceSession(what, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors share no base but Exception
        raise RunError(f"ONNX Runtime cannot load the model: {_one_line(error)}") from None
    names = [output.name for output in loaded.get_outputs()]
    large = onnxruntime.RunOptions()
    large.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    def run(image: NDArray[np.uint8]) -> Answers:
        return dict(zip(names, loaded.run(names, {given: image}, large if _is_large(image) else None), strict=True))

    return run


def _is_large(image: NDArray[np.uint8]) -> bool:
    """Whether ONNX Runtime gives back the memory that a call took. It would keep what its largest call ever took,
    gigabytes after one of large photographs; giving it back costs a tenth of a call, so that usual ones keep theirs."""
    return image.nbytes > _LARGE or max(image.shape[1:3]) > _LONG


def import_openvino() -> Any:
    """The module, kept from telling its maker that it was imported: by default it writes ``~/intel`` and sends an event
    to Google Analytics, unasked. Where its sender cannot be imported it has a stand-in that does nothing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: importing it raises
    import openvino

    return openvino


def check_bf16() -> None:
    """Raises ConfigError where OpenVINO is not installed or the CPU has no arithmetic in bf16."""
    try:
        core = import_openvino().Core()
    except ImportError as error:
        raise not_installed("openvino", "bf16", error) from None
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise ConfigError("precision = 'bf16' is not there on this CPU: use fp32 or int8")


def open_openvino(
    source: Path | bytes, precision: Precision, threads: int, given: str = "image", *, streams: int = 1
) -> Run:
    """A file, or an ONNX graph as bytes; ``given`` is the name of its input.

    Raises ConfigError for bf16 on a CPU without: OpenVINO would silently compute in single precision there.
    """
    if precision == "bf16":
        check_bf16()
    core = import_openvino().Core()
    core.set_property({"ENABLE_MMAP": False})  # a model in use must not change when its file does
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        **({"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}),
    }
    try:
        model = core.read_model(source)
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # its errors share no base but Exception
        raise RunError(f"OpenVINO cannot load the model: {_one_line(error)}") from None
    names = [output.get_any_name() for output in model.outputs]  # once compiled, one may go by a second name

    def run(image: NDArray[np.uint8]) -> Answers:
        said = compiled.create_infer_request().infer({given: image}, share_inputs=True, share_outputs=False)
        return {name: np.array(said[i]) for i, name in enumerate(names)}

    return run


def _open_torch(path: Path, precision: Precision, threads: int, *, streams: int = 1) -> Run:
    """One call at a time: its threads are those of the whole process."""
    import torch
    import torchvision  # noqa: F401  (brings non-maximum suppression)

    torch.set_num_threads(threads)
    _refuse_pickles(path)
    try:
        module = torch.export.load(path).module()
    except Exception as error:  # a damaged archive raises almost anything
        raise RunError(f"torch cannot load {path.name}: {_one_line(error)}") from None

    def run(image: NDArray[np.uint8]) -> Answers:
        with torch.inference_mode():
            said = module(torch.from_numpy(np.ascontiguousarray(image)))
        return {name: values.cpu().numpy() for name, values in said.items()}

    return run


def _refuse_pickles(path: Path) -> None:
    """torch unpickles what an archive says is pickled, which runs code: what Snellen writes says so of nothing.

    Raises RunError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                text = archive.read(name).lower() if name.endswith(".json") else b""
                if b'"use_pickle": true' in text or b'"use_pickle":true' in text or name.endswith((".pkl", ".pickle")):
                    raise RunError(f"{path.name} holds a pickle ({name}), which could run anything: it is not opened")
    except (OSError, zipfile.BadZipFile) as error:
        raise RunError(f"{path.name} is no archive that torch wrote: {error}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


_OPENERS: Mapping[Format, Callable[..., Run]] = {
    "onnx": open_onnx,
    "openvino": open_openvino,
    "torch": _open_torch,
}
_EXTRA: Mapping[Format, str] = {"onnx": "export", "openvino": "openvino", "torch": "export"}
