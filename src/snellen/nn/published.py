"""Detectors that are published whole, for transformers: what their files say. No torch: settings are checked early.

``hf:NAME`` is a folder with config.json, model.safetensors and preprocessor_config.json, as transformers saves them:
on this machine, or of that name on huggingface.co.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

from snellen.core.config import Config
from snellen.core.errors import ConfigError, WeightsError
from snellen.nn.detection import table
from snellen.nn.hub import download

PREFIX = "hf:"
ARCHITECTURES: Mapping[str, str] = {  # by config.json's model_type; the second RT-DETR samples features another way
    "rt_detr": "rt-detr",
    "rt_detr_v2": "rt-detr",  # Lv et al. 2024 (arXiv:2407.17140)
    "d_fine": "d-fine",
    "rf_detr": "rf-detr",
}
_DESCRIPTIONS = ("config.json", "preprocessor_config.json", "README.md")
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_USUAL_SIDE = 640  # pixels: of RT-DETR and D-FINE
# Of classes, of files and of software: nothing that the network is made of.
_UNNEEDED = {
    *("architectures", "id2label", "label2id", "num_labels", "problem_type", "auto_map", "_name_or_path"),
    *("transformers_version", "torch_dtype", "dtype", "_commit_hash", "return_dict"),
    *("output_hidden_states", "output_attentions"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A detector with a backbone of its own.

    architecture  its name in nn/detection/table.py
    settings      what transformers builds the network from, but for the number of classes; JSON
    classes       the names of its outputs, in their order
    input_size    (width, height) of the images that it was published for
    mean, std     per channel (RGB) of pixel values in 0..1
    folder        where its files are
    name          after the prefix, as it was asked for
    source, license   where it comes from and under which licence, as the user is told
    """

    name: str
    architecture: str
    settings: Mapping[str, Any]
    classes: tuple[str, ...]
    input_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    folder: Path
    source: str
    license: str


def is_published(model: str) -> bool:
    return model.startswith(PREFIX)


def read_published(model: str) -> Published:
    """What the files of ``model`` say, ``hf:NAME``; its weights are not touched.

    Raises ConfigError for a folder that holds no detector of a known kind, WeightsError where it cannot be downloaded.
    """
    name = model.removeprefix(PREFIX)
    folder = _folder(name, _DESCRIPTIONS)
    told, seen = _json(folder / "config.json"), _json(folder / "preprocessor_config.json", needed=False)
    kind = _kind(model, told)
    try:
        settings, classes = _needed(told), _classes(told)
        mean, std = _standardisation(seen, usual=kind == "rf_detr")
        size = _input_size(seen, settings)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"cannot make sense of the settings in {folder} ({error}): save them with transformers"
        ) from None
    return Published(
        name=name,
        architecture=ARCHITECTURES[kind],
        settings=settings,
        classes=classes,
        input_size=size,
        mean=mean,
        std=std,
        folder=folder,
        source=f"the folder {folder.name}" if _is_here(name) else f"{name} of huggingface.co, revision {folder.name}",
        license=_license(folder),
    )


def check_model(config: Config, task: str, known: Sequence[str]) -> None:
    """Raises ConfigError, WeightsError for a detector that will not do, before images are read.

    ``known``: the task's architectures.
    """
    if not is_published(config.model):
        if config.architecture in set(known) & table.ARCHITECTURES.keys():
            table.check(config.architecture)
        return
    if not set(known) & set(ARCHITECTURES.values()):
        raise ConfigError(
            f"model = '{config.model}' is a whole detector, which the task '{task}' cannot use: give a backbone, such "
            "as 'resnet18'"
        )
    published = read_published(config.model)
    table.check(published.architecture, published=True)
    if config.architecture not in ("auto", published.architecture):
        raise ConfigError(
            f"architecture = '{config.architecture}' does not fit model = '{config.model}', which is a "
            f"'{published.architecture}': leave the architecture out"
        )
    for name in ("norm", "activation"):
        if getattr(config, name) != "auto":
            raise ConfigError(
                f"{name} = '{getattr(config, name)}' does not fit a detector published whole: leave it out"
            )
    if config.weights is not None:
        raise ConfigError(f"model = '{config.model}' brings its own weights: leave the other ones out")
    if config.pretrained:
        weights_folder(published)


def weights_folder(known: Published) -> Path:
    """The folder with the weights of ``known``, which are downloaded if need be. Raises WeightsError.

    Nothing but safetensors is ever read: other files of weights can hold code.
    """
    folder = _folder(known.name, _DESCRIPTIONS + _WEIGHTS)
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(
            f"no *.safetensors in '{known.name}', and no other weights are read: save them with transformers, or use "
            "--no-pretrained"
        )
    return folder


def step(settings: Mapping[str, Any]) -> int:
    """Sides of inputs are multiples of so many pixels."""
    if settings["model_type"] == "rf_detr":
        body = _body(settings)
        return int(body.get("patch_size", 14)) * int(body.get("num_windows", 4))
    return max(strides(settings))


def strides(settings: Mapping[str, Any]) -> tuple[int, ...]:
    """By which factors the maps that objects are looked for in are smaller than the input."""
    if settings["model_type"] == "rf_detr":
        return (int(_body(settings).get("patch_size", 14)),)
    return tuple(map(int, settings.get("feat_strides", (8, 16, 32))))


def check_input(settings: Mapping[str, Any], size: tuple[int, int]) -> None:
    """Raises ConfigError for an input (width, height) in pixels that the network cannot take."""
    width, height = size
    multiple, queries = step(settings), int(settings.get("num_queries", 300))
    table.check_sides(size, multiple)
    # transformers (5.23) cuts images into windows and puts them together again in another order unless they are square.
    if width != height and settings["model_type"] == "rf_detr" and _body(settings).get("num_windows", 4) > 1:
        raise ConfigError(
            f"this detector takes square images, not {width} x {height} pixels: use {max(size)} x {max(size)}"
        )
    if _places(settings, size) < queries:
        side = next(side for side in range(multiple, 2**16, multiple) if _places(settings, (side, side)) >= queries)
        raise ConfigError(
            f"this detector looks for {queries} objects, and in {width} x {height} pixels it has but "
            f"{_places(settings, size)} places to look at: use {side} x {side} or more"
        )


def _places(settings: Mapping[str, Any], size: tuple[int, int]) -> int:
    return sum((size[0] // stride) * (size[1] // stride) for stride in strides(settings))


def _is_here(name: str) -> bool:
    return bool(name) and Path(name).expanduser().is_dir()


def _folder(name: str, patterns: tuple[str, ...]) -> Path:
    """Raises ConfigError for a path without a folder, WeightsError for a name that the hub does not give."""
    if _is_here(name):
        return Path(name).expanduser().resolve()
    if name.startswith((".", "/", "~")) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ConfigError(f"no folder at '{name}': give one with config.json, or a name of huggingface.co, as in 'a/b'")
    try:
        return download(name, patterns)
    except Exception as error:  # the hub's client raises many kinds
        cause = shorten(str(error), 150, placeholder=" ...")
        raise WeightsError(
            f"no folder '{name}' is here, and it cannot be downloaded from huggingface.co ({cause}): give a folder "
            "with config.json and model.safetensors"
        ) from None


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"no {path.name} in {path.parent}: give a folder that transformers' save_pretrained wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {shorten(str(error), 150, placeholder=' ...')}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings by name: give a folder that transformers' save_pretrained wrote")
    return content


def _kind(model: str, told: Mapping[str, Any]) -> str:
    """config.json's model_type. Raises ConfigError for one that is not known, and for a network that gives masks."""
    kind = str(told.get("model_type"))
    others = [each for each in told.get("architectures") or () if "ForObjectDetection" not in str(each)]
    if kind not in ARCHITECTURES or others:
        found = kind if kind not in ARCHITECTURES else others[0]
        raise ConfigError(f"model = '{model}' is of the kind '{found}': use a detector of {', '.join(ARCHITECTURES)}")
    return kind


def _needed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _needed(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in _UNNEEDED
    }


def _body(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    return settings.get("backbone_config") or {}


def _classes(told: Mapping[str, Any]) -> tuple[str, ...]:
    names = told.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(told.get("num_labels", 2)))}
    return tuple(str(names[i]) for i in sorted(names, key=int))


def _standardisation(
    seen: Mapping[str, Any], *, usual: bool
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """``usual``: whether images of this kind of detector are standardised where nothing is said of it."""
    if not seen.get("do_normalize", usual):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return _three(seen.get("image_mean", _IMAGENET[0])), _three(seen.get("image_std", _IMAGENET[1]))


def _three(numbers: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, numbers)
    return red, green, blue


def _input_size(seen: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[int, int]:
    size, multiple = seen.get("size"), step(settings)
    if isinstance(size, Mapping) and {"width", "height"} <= size.keys():
        return int(size["width"]), int(size["height"])
    side = _body(settings).get("image_size", _USUAL_SIDE) if settings["model_type"] == "rf_detr" else _USUAL_SIDE
    fitting = max(1, round((side if isinstance(side, int) else side[0]) / multiple)) * multiple
    return fitting, fitting


def _license(folder: Path) -> str:
    """As the head of a model card states it: ``license: apache-2.0``."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    head = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return found[1] if found else "not known: the files state none"
