"""What the user asked for. Every default is written here, once; the command line, the TOML file and Python share it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from snellen.core.errors import ConfigError, did_you_mean

Auto = Literal["auto"]
_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


def _seconds(value: object) -> object:
    """``90``, ``'90s'``, ``'5m'``, ``'1.5h'`` -> seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
    if match is None:
        raise ValueError("write a duration like 90s, 5m or 1.5h")
    return float(match[1]) * _UNITS[match[2]]


def _fractions(value: object) -> object:
    """``'70/15/15'`` -> (0.70, 0.15, 0.15)."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(float(part) / 100 for part in value.split("/"))
    except ValueError:
        raise ValueError("write the split as percentages like 70/15/15") from None


class Config(BaseModel):
    """The settings of one training run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    data: str = Field(description="A folder of images, a table of labels, or sample:NAME.")
    images: str | None = Field(None, description="Where the images are that a table names.")
    task: Literal["auto", "classification", "multilabel"] = Field("auto", description="What to learn.")
    split: Annotated[tuple[float, float, float], BeforeValidator(_fractions)] = Field(
        (0.70, 0.15, 0.15), description="Train/validation/test shares, as 70/15/15."
    )
    groups: str = Field(
        "auto",
        description="Images that stay together: 'auto' looks in file names, 'none', or a regular expression whose "
        "first group is the name.",
    )

    model: str = Field("auto", description="A timm backbone by name, or 'small-resnet'.")
    pretrained: bool = Field(True, description="Start from pretrained weights.")
    weights: str | None = Field(None, description="A local file of backbone weights (.safetensors or .pth).")
    input_size: Annotated[int, Field(ge=8, le=2048)] | Auto = Field("auto", description="Side of the input in pixels.")

    fit: Literal["auto", "squash", "center crop"] = Field("auto", description="How an image meets the square input.")

    epochs: Annotated[int, Field(ge=0, le=100_000)] | Auto = Field(
        "auto", description="Epochs of training all layers; 0 stops after the linear probe."
    )
    head_epochs: Annotated[int, Field(ge=0, le=1000)] | Auto = Field(
        "auto", description="Epochs of training the head alone before that."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Auto = Field("auto", description="Images per step.")
    lr: Annotated[float, Field(gt=0, le=10)] | Auto = Field("auto", description="Learning rate of the head.")
    body_lr: Annotated[float, Field(ge=0, le=10)] | Auto = Field("auto", description="Learning rate of the backbone.")
    weight_decay: Annotated[float, Field(ge=0, le=10)] | Auto = Field("auto", description="Decoupled weight decay.")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | Auto = Field("auto", description="Label smoothing.")
    ema: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto", description="Decay of the moving average of the weights; 0 turns it off."
    )
    patience: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Stop after this many epochs without a better validation result."
    )
    augment: Literal["auto", "none", "photos", "tiny"] = Field("auto", description="How training images are varied.")
    time_limit: Annotated[float, BeforeValidator(_seconds), Field(gt=0)] | None = Field(
        None, description="Stop in good order after this long: 90s, 5m, 1.5h."
    )

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Arithmetic; 'auto' measures.")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps or auto.")
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto = Field("auto", description="CPU threads of the arithmetic.")
    workers: Annotated[int, Field(ge=1, le=256)] | Auto = Field("auto", description="Threads that read images.")
    cache: str | None = Field(None, description="Folder for features and samples that are kept between runs.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Same seed, same machine: same bits.")

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
            raise ValueError("use auto, cpu, cuda, cuda:N or mps")
        return value

    @field_validator("split")
    @classmethod
    def _shares_add_up(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(value) - 1) > 1e-6 or min(value) < 0 or min(value[:2]) <= 0:
            raise ValueError("the shares must add up to 100, with something for training and validation")
        return value

    @classmethod
    def of(cls, **settings: Any) -> Config:
        """Check ``settings`` against the fields. Raises ConfigError, naming the nearest setting to an unknown one."""
        for name in settings:
            if name not in cls.model_fields:
                raise ConfigError(f"unknown setting '{name}'{did_you_mean(name, cls.model_fields)}")
        try:
            return cls(**settings)
        except ValidationError as error:
            raise ConfigError(_one_line(error)) from None

    @classmethod
    def from_file(cls, path: Path, overrides: Mapping[str, Any]) -> Config:
        """Read a TOML file of settings; ``overrides`` win over it."""
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"no configuration file at {path}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the configuration file {path}: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from None
        try:
            return cls.of(**{**settings, **overrides})
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def to_toml(self) -> str:
        """The file that ``snellen train --config`` reads back to the same settings."""
        import tomli_w

        settings = self.model_dump(exclude_none=True)
        settings["split"] = "/".join(f"{100 * share:g}" for share in self.split)
        return tomli_w.dumps(settings)


def _one_line(error: ValidationError) -> str:
    """The first thing that is wrong, with what was written. A choice between types reports each: one sentence."""
    faults = error.errors()
    name = str(faults[0]["loc"][0]) if faults[0]["loc"] else "settings"
    same = [fault for fault in faults if fault["loc"][:1] == faults[0]["loc"][:1]]
    allowed = [fault["msg"].removeprefix("Value error, ") for fault in same]
    wish = " or ".join(text[0].lower() + text[1:] for text in dict.fromkeys(allowed))
    if faults[0]["type"] == "missing":
        return f"the setting '{name}' is needed"
    return f"{name} = {faults[0]['input']!r} is not allowed: {wish}"
