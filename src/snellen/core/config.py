"""What the user asked for. Every default is written here, once; the command line, the TOML file and Python share it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from snellen.core.config_words import wish
from snellen.core.errors import ConfigError, did_you_mean

Auto = Literal["auto"]
_SHOWN = 80  # characters of a wrong value in an error
_SIZE_WISH = "give 'auto', or sides from 8 to 2048 pixels: one, or width x height as 640x480"
_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}


def _seconds(value: object) -> object:
    """``90``, ``'90s'``, ``'5m'``, ``'1.5h'`` -> seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
    if match is None:
        raise ValueError("give a duration like 90s, 5m or 1.5h")
    return float(match[1]) * _UNITS[match[2]]


def _fractions(value: object) -> object:
    """``'70/15/15'`` -> (0.70, 0.15, 0.15)."""
    if isinstance(value, str):
        try:
            value = tuple(float(part) / 100 for part in value.split("/"))
        except ValueError:
            value = ()
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ValueError("give three percentages like 70/15/15")
    return value


def _sides(value: object) -> object:
    """``320`` -> (320, 320); ``'640x480'`` -> (640, 480)."""
    if isinstance(value, str):
        match = re.fullmatch(r"(\d{1,5})(?:\s*x\s*(\d{1,5}))?", value.strip())
        if match is None:
            raise ValueError(_SIZE_WISH)
        return int(match[1]), int(match[2] or match[1])
    return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value


def _numbers(text: str) -> tuple[int, ...]:
    """``'0, 255'`` -> (0, 255)."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"\d{1,8}", part) for part in parts):
        raise ValueError("give whole numbers, as 255 or 0,255")
    return tuple(int(part) for part in parts)


class Config(BaseModel):
    """The settings of one training run."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        allow_inf_nan=False,
        defer_build=True,  # the help lists the fields and checks nothing
    )

    data: str = Field(
        description="A folder of images, a table of labels, boxes (COCO, YOLO, Pascal VOC, LabelMe, CVAT, CSV), a "
        "folder of images and masks, or sample:NAME."
    )
    images: str | None = Field(None, description="Where the images are that a table or a file of boxes names.")
    task: Literal["auto", "classification", "multilabel", "regression", "detection", "segmentation", "instances"] = (
        Field("auto", description="What to learn.")
    )
    void: str | None = Field(
        None, description="Values of masks that mean nothing, as 255 or 0,255: neither learnt nor judged."
    )
    outlines: Literal["polygon", "corners"] | None = Field(
        None, description="What a YOLO line of nine numbers is: a polygon, or the corners of a rotated box."
    )
    box_origin: Literal[0, 1] | None = Field(
        None, description="What the first pixel is called in Pascal VOC boxes; 1 is the standard."
    )
    split: Annotated[tuple[float, float, float], BeforeValidator(_fractions)] = Field(
        (0.70, 0.15, 0.15), description="Train/validation/test shares, as 70/15/15."
    )
    groups: str = Field(
        "auto",
        description="Images that stay together: 'auto' looks in file names, 'none', or a regular expression whose "
        "first group is the name.",
    )
    overlay: str | None = Field(
        None,
        description="A file of changes to the data, as an audit or the doctor writes it; no file of yours is touched.",
    )

    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        None, description="Cross-validate: divide what is not sealed for testing into this many folds."
    )
    fold: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="Train on one of the folds alone: this one, from 1, is the validation side."
    )
    repeats: Annotated[int, Field(ge=1, le=20)] = Field(
        1, description="Cross-validate this many times: other folds and other weights, the same test images."
    )
    test: bool = Field(True, description="Open the sealed test images at the end.")

    model: str = Field(
        "auto",
        description="A timm backbone by name, a classic such as 'alexnet' or 'vit', 'small-resnet', or a plain net: "
        "'logistic', 'mlp:256,128', 'cnn:32,64,128'; hf:NAME is a whole detector for transformers: a "
        "folder, or a name of huggingface.co.",
    )
    activation: Literal[
        "auto", "sigmoid", "tanh", "relu", "leaky-relu", "prelu", "elu", "selu", "silu", "swish", "hardswish", "none"
    ] = Field("auto", description="Activation of a plain net, or swapped into any other.")
    norm: Literal["auto", "batch", "layer", "group", "instance", "none"] = Field(
        "auto", description="Normalisation layers of a plain net, or swapped in for batch norms."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | Auto = Field("auto", description="Dropout before the head.")
    pretrained: bool = Field(True, description="Start from pretrained weights.")
    weights: str | None = Field(None, description="A local file of backbone weights (.safetensors or .pth).")
    architecture: str = Field(
        "auto",
        description="What stands on the model where answers are about places: 'dense', 'faster-rcnn', ... for boxes, "
        "'unet', 'deeplabv3+', ... for classes of pixels.",
    )
    input_size: Annotated[tuple[int, int], BeforeValidator(_sides)] | Auto = Field(
        "auto", description="Input in pixels: a side, or width x height as 640x480."
    )

    fit: Literal["auto", "squash", "center crop", "letterbox"] = Field(
        "auto", description="How an image meets the square input."
    )

    transfer: Literal["auto", "probe", "head", "full", "svm"] = Field(
        "auto",
        description="What is learnt on pretrained weights: 'probe' a linear head, 'head' the head by the training "
        "loop, 'full' head and then all layers, 'svm' a linear SVM on an earlier stage; 'auto' measures.",
    )
    frozen_stages: Annotated[int, Field(ge=0, le=100)] | Auto = Field(
        "auto", description="First stages of the backbone that stay as they are."
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | Auto = Field(
        "auto", description="Factor on the learning rate from one stage to the one before it; 1: all the same."
    )
    epochs: Annotated[int, Field(ge=0, le=100_000)] | Auto = Field(
        "auto", description="Epochs of training all layers; 0 stops after the linear probe."
    )
    head_epochs: Annotated[int, Field(ge=0, le=1000)] | Auto = Field(
        "auto", description="Epochs of training the head alone before that."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] | Literal["auto", "all"] = Field(
        "auto", description="Images per batch; 1: per-sample descent, 'all': batch gradient descent."
    )
    accumulate: Annotated[int, Field(ge=1, le=65_536)] = Field(1, description="Batches whose gradients make one step.")
    loss: str = Field(
        "auto",
        description="What is minimised: cross-entropy, focal, bce, l1, l2, smooth-l1; of pixels also dice, jaccard, "
        "lovasz, and sums such as 'cross-entropy+0.5*dice'.",
    )
    loss_weights: str | None = Field(
        None, description="Weights of the terms of a detector's loss, as in 'box=2, class=1'."
    )
    focal_gamma: Annotated[float, Field(ge=0, le=10)] = Field(2.0, description="Focus of the focal loss; 0: none.")
    imbalance: Literal["auto", "none", "oversample", "undersample", "weights", "focal", "smote", "thresholds"] = Field(
        "auto", description="What is done about rare classes; 'auto' measures, and lets their pixels count more."
    )
    optimizer: Literal[
        "auto",
        "sgd",
        "momentum",
        "nesterov",
        "adagrad",
        "adadelta",
        "rmsprop",
        "adam",
        "adamw",
        "radam",
        "nadam",
    ] = Field("auto", description="The rule of the step.")
    momentum: Annotated[float, Field(gt=0, lt=1)] = Field(0.9, description="Of 'momentum' and 'nesterov'.")
    lookahead: bool = Field(False, description="Lookahead around the optimizer: slow weights follow the fast ones.")
    schedule: Literal["auto", "constant", "step", "inverse", "cosine", "one-cycle", "plateau"] = Field(
        "auto", description="How the learning rate changes over the run."
    )
    warmup_steps: Annotated[int, Field(ge=0)] | Auto = Field(
        "auto", description="Steps over which the learning rate rises from nothing."
    )
    lr: Annotated[float, Field(gt=0, le=10)] | Literal["auto", "find"] = Field(
        "auto", description="Learning rate of the head; 'find' sweeps it first."
    )
    body_lr: Annotated[float, Field(ge=0, le=10)] | Auto = Field("auto", description="Learning rate of the backbone.")
    weight_decay: Annotated[float, Field(ge=0, le=10)] | Auto = Field("auto", description="Decoupled weight decay.")
    l1: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="Penalty on absolute weights, in the loss.")
    l2: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="Penalty on squared weights, in the loss.")
    clip_norm: Annotated[float, Field(ge=0)] | Auto = Field(
        "auto", description="Longest gradient of a step; 0 never clips."
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] | Auto = Field("auto", description="Label smoothing.")
    ema: Annotated[float, Field(ge=0, lt=1)] | Auto = Field(
        "auto", description="Decay of the moving average of the weights; 0 turns it off."
    )
    patience: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Stop after this many epochs without a better validation result."
    )
    freeze_norm: bool | Auto = Field("auto", description="Keep the batch norms of pretrained layers as they are.")
    augment: str = Field(
        "auto",
        description="How training images are varied: none, photos, tiny, autoaugment, randaugment or trivialaugment, "
        "then what differs, as in 'photos, rotate_degrees=15, blur=0.2'.",
    )
    mixup: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="MixUp's alpha; 0 is off.")
    cutmix: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="CutMix's alpha; 0 is off.")
    mosaic: Annotated[float, Field(ge=0, le=1)] | Auto = Field(
        "auto", description="Share of training images that are put together from four (boxes and masks)."
    )
    copy_paste: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="Share of training images that get objects of another one pasted in (masks of objects)."
    )
    nms: Literal["auto", "per class", "agnostic", "soft"] = Field(
        "auto",
        description="How overlapping boxes are thinned out: within a class, across classes, or by lower scores.",
    )
    nms_iou: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="Overlap above which two boxes are taken for one."
    )
    calibrate: Literal["none", "temperature"] = Field(
        "none", description="Fit the confidence on the validation images after training."
    )
    time_limit: Annotated[float, BeforeValidator(_seconds), Field(gt=0)] | None = Field(
        None, description="Stop in good order after this long: 90s, 5m, 1.5h."
    )
    checkpoint_every: Annotated[float, BeforeValidator(_seconds), Field(ge=0)] = Field(
        20.0, description="Save what a resumed run goes on with this often, in seconds or as 5m; 0: after every step."
    )

    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="Arithmetic; 'auto' measures.")
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps or auto.")
    threads: Annotated[int, Field(ge=1, le=1024)] | Auto = Field("auto", description="CPU threads of the arithmetic.")
    workers: Annotated[int, Field(ge=1, le=256)] | Auto = Field("auto", description="Threads that read images.")
    cache: str | None = Field(None, description="Folder for features and samples that are kept between runs.")
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, description="Same seed, same machine: same bits.")
    split_seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(
        None, description="Seed of the division into sides alone; default: the seed."
    )

    @property
    def void_values(self) -> tuple[int, ...] | None:
        """``void`` as numbers."""
        return None if self.void is None else _numbers(self.void)

    @field_validator("void")
    @classmethod
    def _void_is_values(cls, value: str | None) -> str | None:
        if value is not None:
            _numbers(value)
        return value

    @field_validator("input_size", mode="after")
    @classmethod
    def _usable_size(cls, value: Any) -> Any:
        if value != "auto" and not all(8 <= side <= 2048 for side in value):
            raise ValueError(_SIZE_WISH)
        return value

    @property
    def seed_of_sides(self) -> int:
        """What the division into sides follows from; the division into folds follows from ``seed``."""
        return self.seed if self.split_seed is None else self.split_seed

    @field_validator("data", "images", "overlay", "weights", "cache")
    @classmethod
    def _can_be_a_path(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("it is empty; give a path")
        if value is not None and ("\0" in value or not _is_unicode(value)):
            raise ValueError("no run can keep this path; give one that is UTF-8 text")
        return value

    @field_validator("groups")
    @classmethod
    def _groups_an_image(cls, value: str) -> str:
        if value in ("auto", "none"):
            return value
        try:
            pattern = re.compile(value)
        except re.error as error:
            raise ValueError(f"it is no regular expression ({error})") from None
        if pattern.groups < 1:
            raise ValueError("it needs a part in parentheses, which is the group's name; or give 'auto' or 'none'")
        return value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,4})?", value):
            raise ValueError("use auto, cpu, cuda, cuda:N or mps")
        return value

    @field_validator("split")
    @classmethod
    def _shares_add_up(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not abs(sum(value) - 1) <= 1e-6 or min(value) < 0 or min(value[:2]) <= 0:
            raise ValueError("the shares must add up to 100, with something for training and validation")
        return value

    @classmethod
    def of(cls, **settings: Any) -> Config:
        """Check ``settings`` against the fields. Raises ConfigError, naming the nearest setting to an unknown one."""
        return cls._checked(settings, {})

    @classmethod
    def _checked(cls, settings: Mapping[str, Any], where: Mapping[str, Path]) -> Config:
        """``where``: the file that a setting is written in, for the error."""
        for name in settings:
            if name not in cls.model_fields:
                unknown = f"unknown setting {repr(name)[:_SHOWN]}{did_you_mean(name, cls.model_fields)}"
                raise ConfigError(_in_file(unknown, where.get(name)))
        try:
            return cls(**settings)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            field = cls.model_fields[name]
            if name not in settings:
                raise ConfigError(f"the setting '{name}' is needed: {field.description}") from None
            wrong = f"{name} = {repr(settings[name])[:_SHOWN]} is not allowed: {wish(error, name, field)}"
            raise ConfigError(_in_file(wrong, where.get(name))) from None

    @classmethod
    def from_file(cls, path: Path, overrides: Mapping[str, Any]) -> Config:
        """Read a TOML file of settings; ``overrides`` win over it."""
        try:
            settings = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"no configuration file at {path}") from None
        except OSError as error:
            raise ConfigError(f"cannot read the configuration file {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not a TOML file: it is not UTF-8 text") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from None
        return cls._checked({**settings, **overrides}, dict.fromkeys(settings.keys() - overrides.keys(), path))

    def to_toml(self) -> str:
        """The file that ``snellen train --config`` reads back to the same settings."""
        import tomli_w

        settings = self.model_dump(exclude_none=True)
        percentages = "/".join(f"{100 * share:g}" for share in self.split)
        settings["split"] = percentages if _fractions(percentages) == self.split else list(self.split)
        if self.input_size != "auto":
            width, height = self.input_size
            settings["input_size"] = width if width == height else f"{width}x{height}"
        return tomli_w.dumps(settings)


def _is_unicode(text: str) -> bool:
    """False for a file name that is not UTF-8, as Python hands it on."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _in_file(message: str, path: Path | None) -> str:
    return message if path is None else f"{path}: {message}"
