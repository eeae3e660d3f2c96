"""Models over HTTP, from the folders of runs and from exported artifacts; for the latter torch is not loaded."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from snellen.api.opening import is_exported, open_model
from snellen.core.console import Console
from snellen.core.errors import ConfigError, RunError
from snellen.core.run import RunFolder

if TYPE_CHECKING:
    from PIL import Image

    from snellen.export.manifest import Manifest
    from snellen.predict.answering import Answering
    from snellen.serve.address import Address
    from snellen.serve.limits import Limits
    from snellen.serve.models import Served

_PACKAGES = ("starlette", "uvicorn", "prometheus_client", "python_multipart")
_TOLD_OF_A_FINDING = ("code", "severity", "message", "advice", "certainty")  # not the images: they are the owner's
_MOST_PLACES = 500  # of the patch in one explanation: a usual photograph has about a hundred
_SOFTWARE = ("snellen", "torch", "timm", "torchvision", "python")


def serve(
    models: Sequence[str | Path],
    address: Address | None = None,
    *,
    limits: Limits | None = None,
    device: str = "auto",
    log_requests: bool = True,
    console: Console | None = None,
) -> None:
    """Answer over HTTP until SIGTERM or SIGINT; what was taken in by then is answered first.

    models  folders of runs, or what ``snellen export`` wrote; each may be given as NAME=PATH, else it is called as its
            folder or file is
    device  of the runs among them; exported models run on the CPU

    Raises SnellenError for what cannot be served, before it listens.
    """
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"serving needs {', '.join(missing)}: pip install 'snellen[serve]'")
    from snellen.serve.address import Address
    from snellen.serve.limits import Limits
    from snellen.serve.server import listening_socket
    from snellen.serve.start import serve_models

    address, limits, console = address or Address(), limits or Limits(), console or Console()
    named = _named(models)
    with listening_socket(address.host, address.port) as bound:  # first: it is quick, and loading is not
        # A device is of the runs; where there is none, it is a mistake that an exported model tells.
        with_runs = any(not is_exported(path) for path in named.values())
        models_by_name = {
            name: served(path, device="auto" if with_runs and is_exported(path) else device)
            for name, path in named.items()
        }
        about: dict[str, Any] = {"version": version("snellen"), "log_requests": log_requests, "console": console}
        serve_models(models_by_name, bound, address, limits, **about)


def served(path: Path, *, device: str = "auto") -> Served:
    """A run folder or an artifact, as it is served. Raises SnellenError."""
    from snellen.export.artifact import ArtifactAnswering
    from snellen.serve.models import Served

    if not path.exists():
        raise RunError(f"{path} does not exist: give a folder that 'snellen train' wrote, or what was exported from it")
    opened = open_model(path, device=device, shared=True)
    answering = opened.answering
    if opened.folder is not None:
        return Served(answering, _card_of_run(opened.folder, answering), explanation_of)
    assert isinstance(answering, ArtifactAnswering)
    return Served(answering, _card_of_artifact(answering.manifest), explanation_of, answering.streams)


def explanation_of(answering: Answering, pixels: np.ndarray, of: str | None = None) -> tuple[Image.Image, str]:
    """Where hiding a part of the image moves what the model says of it, and a sentence about that. ``of``: of which
    class; None: of the one that it is surest of."""
    from snellen.data.store import frame_of
    from snellen.explain.explanation import MEANING
    from snellen.explain.occlusion import Patch, num_places, occlusion_of

    frame = frame_of((pixels.shape[1], pixels.shape[0]), answering.preprocessing)
    usual = num_places(frame, Patch())
    if usual > _MOST_PLACES:
        shape = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise ConfigError(
            f"an image of {shape} has {usual:,} places to hide, more than the {_MOST_PLACES} that are tried"
        )
    [first] = occlusion_of(answering, pixels, of=of, only_first=True)
    check = "" if first.deletion is None else f" Its check: {first.deletion}."
    return first.picture(), f"{first.caption}. {MEANING}{check}"


def _named(models: Sequence[str | Path]) -> dict[str, Path]:
    """Name -> path. Raises ConfigError for a name that cannot be, or is there twice."""
    from snellen.serve.models import check_name

    if not models:
        raise ConfigError("no model was given: name the folder of a run, or what was exported from one")
    found: dict[str, Path] = {}
    for given in models:
        name, equals, path = str(given).partition("=")
        if not equals or isinstance(given, Path) or "/" in name or Path(given).exists():
            path = str(given)
            name = Path(path).absolute().name.removesuffix(".zip")
        if check_name(name) in found:
            raise ConfigError(f"two models are called '{name}': give one of them another name, as name={path}")
        found[name] = Path(path)
    return found


def _card_of_artifact(manifest: Manifest) -> dict[str, Any]:
    told = manifest.to_json()
    return {
        "task": manifest.plan.task,
        "classes": list(manifest.plan.classes),
        "findings": told["weaknesses"],
        "preprocessing": manifest.plan.preprocessing.to_json(),
        **{name: told[name] for name in ("headline", "metrics", "versions", "format", "precision", "checked")},
    }


def _card_of_run(folder: RunFolder, answering: Answering) -> dict[str, Any]:
    """What there is to know of a run's model: numbers with their intervals, and what was found."""
    results = folder.read_json("results.json", missing={})
    environment = folder.read_json("environment.json", missing={})
    return {
        "task": answering.task.name,
        "classes": list(answering.task.classes),
        "headline": results.get("headline", answering.task.headline),
        "verdict": results.get("verdict"),
        "metrics": results.get("splits", {}),
        "findings": [{name: getattr(finding, name) for name in _TOLD_OF_A_FINDING} for finding in folder.findings],
        "versions": {name: environment[name] for name in _SOFTWARE if name in environment},
        "preprocessing": answering.preprocessing.to_json(),
    }
