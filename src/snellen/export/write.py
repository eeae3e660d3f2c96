"""From a run to an artifact: traced, verified on real images, proven by goldens, and only then put in place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from snellen.core.console import Console
from snellen.core.errors import ConfigError, ExportError, SnellenError
from snellen.core.files import TEMPORARY_PREFIX, sha256_of_file, storage_errors, write_text
from snellen.core.record import Record
from snellen.data.image import decode
from snellen.export import card, goldens, verification
from snellen.export.artifact import MANIFEST, ArtifactAnswering
from snellen.export.formats import FORMATS, Kind
from snellen.export.manifest import Manifest
from snellen.export.members import Model, check_members, in_single_precision
from snellen.export.reference import Reference
from snellen.export.runtimes import not_installed, session
from snellen.export.verify import SUMS

_GOLDEN_CANDIDATES = 24
_BLAMED = 3  # images that tell which stage differs, of those that something differs in
_PACKAGES = ("snellen", "torch", "onnx", "onnxruntime", "onnxscript", "openvino", "numpy", "pillow")


def export_model(
    model: Model,
    about: Manifest,
    records: Mapping[str, Sequence[Record]],
    out: Path,
    *,
    calibration: Sequence[Record] = (),
    console: Console,
) -> Manifest:
    """Write the folder ``out``, or nothing.

    about        what the artifact will say of itself, without what is found out here
    records      by split: labelled images of one split that the model has not learnt from
    calibration  training images: by one half 8-bit arithmetic learns what range its numbers have, by the other it is
                 chosen which layers go without; ``records`` only tell what came of it

    Raises ExportError when what was exported is not the model, ConfigError for what the format cannot hold.
    """
    check_members(model)
    model = in_single_precision(model)
    reference = Reference(model)
    ((split, judged),) = records.items()
    with _beside(out) as folder:
        kind = FORMATS[about.format]
        console.say(f"Tracing the model for {about.format}")
        graph, outputs = _built(kind, model, about)
        file = folder / about.file
        learnt, tried = calibration[::2], calibration[1::2] or calibration
        if about.precision == "int8":
            console.say(f"Quantising by {len(learnt)} training images")
        saved = kind.save(graph, file, about.precision, [record.path for record in learnt])
        compare = partial(verification.compare, reference, console=console)
        trying = partial(compare, records=tried, split="train")
        artifact, left_out = _chosen(saved, file, about, trying, console)
        verified = compare(artifact, judged, split)
        try:
            verification.check(verified, about.precision)
        except ExportError as error:
            if about.precision != "fp32":
                raise
            odd = [judged[i] for i in verified.odd] or judged
            images = [decode(record.path) for record in odd[:_BLAMED]]
            raise ExportError(f"{error}; {kind.blame(reference, graph, images)}") from None
        console.say(f"Verified {verified.sentence()}")
        proof, unnoticed = _goldens(reference, artifact, judged)
        told = {**verified.to_json(), "unnoticed_faults": unnoticed, "goldens": len(proof)}
        if left_out:
            told["layers_in_single_precision"] = left_out
        manifest = replace(about, checked=told, outputs=outputs, versions=_versions())
        kind.describe(file, manifest)
        _accompany(folder, manifest, proof)
        with storage_errors(out):
            folder.chmod(0o755)
            folder.rename(out)
    return manifest


def _built(kind: Kind, model: Model, about: Manifest) -> tuple[Any, dict[str, str]]:
    """Raises ConfigError for a network that cannot be traced, or when what traces is not installed."""
    try:
        return kind.build(model)
    except SnellenError:
        raise
    except ImportError as error:
        raise not_installed(about.format, "tracing a model", error) from None
    except Exception as error:  # torch's tracer raises almost anything
        what = about.plan.architecture or about.plan.model
        raise ConfigError(
            f"{what} cannot be exported to {about.format}, as it cannot be traced: train with another architecture "
            f"({_first_cause(error)})"
        ) from error


def _first_cause(error: BaseException) -> str:
    """What was wrong at first, in a few words: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__


def _chosen(
    saved: Iterator[tuple[str, ...]],
    file: Path,
    about: Manifest,
    compare: Callable[[ArtifactAnswering], verification.Verified],
    console: Console,
) -> tuple[ArtifactAnswering, tuple[str, ...]]:
    """The first of what is saved, in 8 bits the first that keeps the metric on the images of ``compare``; and what
    layers were left out of it.

    Raises ExportError when none does: what was wrong with the last.
    """
    refused: ExportError | None = None
    for left_out in saved:
        artifact = ArtifactAnswering(about, session(file, about.format, about.precision))
        if about.precision == "int8":
            tried = compare(artifact)
            try:
                verification.check(tried, about.precision)
            except ExportError as error:
                refused = error
                console.say(f"Too much is lost {tried.sentence()}: leaving out more layers that 8 bits harm most")
                continue
        if left_out:
            console.say(f"{len(left_out)} layers stay in single precision: {', '.join(left_out)}")
        return artifact, left_out
    assert refused is not None
    raise refused


def _goldens(
    reference: Reference, artifact: ArtifactAnswering, records: Sequence[Record]
) -> tuple[list[goldens.Golden], list[str]]:
    """Raises ExportError when the artifact does not pass them."""
    precision = artifact.manifest.precision
    tolerance = goldens.FP32 if precision == "fp32" else goldens.LOOSE
    spread = np.linspace(0, len(records) - 1, min(len(records), _GOLDEN_CANDIDATES)).astype(int)
    images = [decode(records[i].path, min_side=512) for i in spread]
    largest = max((how.input_size for how in reference.preprocessings), key=prod)
    candidates = goldens.candidates_of(images, largest)
    proof, unnoticed = goldens.choose(reference, candidates, tolerance)
    if precision != "fp32":  # what it must say again elsewhere is what it says here
        return [replace(each, expected=artifact.run(each.pixels[None])) for each in proof], unnoticed
    wrong = goldens.check(artifact.run, proof, tolerance)
    if wrong:
        raise ExportError(f"the exported model fails on its own golden images, so nothing was written: {wrong[0]}")
    return proof, unnoticed


def _accompany(folder: Path, manifest: Manifest, proof: Sequence[goldens.Golden]) -> None:
    """All that lies beside the model: the sums of all files come last."""
    goldens.write(folder, proof)
    write_text(folder / MANIFEST, manifest.to_text() + "\n")
    write_text(folder / "README.md", card.written(manifest))
    if manifest.format == "onnx":
        write_text(folder / "predict.py", Path(standalone_source()).read_text(encoding="utf-8"))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{sha256_of_file(path)}  {path.relative_to(folder).as_posix()}" for path in files]
    write_text(folder / SUMS, "\n".join(sums) + "\n")


def standalone_source() -> Path:
    return Path(__file__).with_name("standalone.py")


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder in the same place, which is gone afterwards whatever happens, unless it was given its name."""
    with storage_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=out.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
