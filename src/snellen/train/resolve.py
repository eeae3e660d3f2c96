"""From settings to a plan: every 'auto' is resolved here, with a reason, by functions without side effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np

from snellen.core.config import Config
from snellen.core.errors import ConfigError
from snellen.core.plan import Plan
from snellen.core.preprocessing import Fit, Preprocessing
from snellen.data.augment import Augmentation, is_auto
from snellen.data.loader import steps_per_epoch
from snellen.nn.catalog import (
    EMBEDDED_MODEL,
    SMALL_RESNET,
    BackboneFacts,
    Provenance,
    backbone_facts,
    is_from_scratch,
    plain_net,
    suggest_norm,
)
from snellen.train import places
from snellen.train.schedule import UsualRates, first_rate, usual_rates

ValueT = TypeVar("ValueT", int, float, str)

TINY_SIDE = 64  # pixels: up to here a photograph's network sees little but enlarged blocks
_SMALL_BATCH = 32  # images: with fewer or as many, moving batch-norm statistics cost more than they bring
_WIDE = 2.0  # aspect ratio from which a centre crop would lose half of the image
_UNKNOWN_MEAN = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """What must be known before the images are decoded: at which size they are needed."""

    model: str
    pretrained: bool
    preprocessing: Preprocessing
    reasons: Mapping[str, str]

    @property
    def tiny(self) -> bool:
        return is_from_scratch(self.model)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFacts:
    """What the settings are resolved against. ``seconds`` are measured times by precision, empty before measuring."""

    task: str
    classes: tuple[str, ...]
    losses: tuple[str, ...]
    data_digest: str
    num_train: int
    channel_mean: tuple[float, float, float]
    channel_std: tuple[float, float, float]
    device: str
    cores: int
    dense: bool = False
    architectures: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=lambda: Provenance("", ""))
    inference_seconds: Mapping[str, float] = field(default_factory=dict)


def choose_model(config: Config, sizes: Sequence[tuple[int, int]], *, dense: bool = False) -> ModelChoice:
    """sizes: (width, height) of the images, in pixels. ``dense``: answers are about places.

    Raises ConfigError for an unknown model.
    """
    reasons: dict[str, str] = {}
    side = float(np.median([min(size) for size in sizes]))
    model = config.model
    if model == "auto":
        tiny = side <= TINY_SIDE and config.weights is None and not dense
        model = SMALL_RESNET if tiny else EMBEDDED_MODEL
        reasons["model"] = (
            f"half of the images are at most {side:.0f} pixels on their short side: a small network from scratch fits"
            if model == SMALL_RESNET
            else "a light network whose ImageNet weights are built in"
        )
    facts = backbone_facts(model)
    pretrained = facts is not None and (config.pretrained or config.weights is not None)
    if dense:
        input_size, fit = places.choose_input(config, facts, sizes, reasons)
    else:
        input_size = _input_size(config, facts, side, reasons)
        fit = _fit(config, facts, sizes, reasons)
    preprocessing = Preprocessing(
        input_size=input_size,
        fit=fit,
        crop_fraction=facts.crop_fraction if facts is not None and fit == "center crop" else 1.0,
        mean=facts.mean if facts is not None and pretrained else _UNKNOWN_MEAN,
        std=facts.std if facts is not None and pretrained else _UNKNOWN_MEAN,
    )
    return ModelChoice(model=model, pretrained=pretrained, preprocessing=preprocessing, reasons=reasons)


def _input_size(config: Config, facts: BackboneFacts | None, side: float, reasons: dict[str, str]) -> tuple[int, int]:
    if config.input_size != "auto":
        return config.input_size
    if facts is not None:
        reasons["input_size"] = "the size that the weights were trained at"
        return facts.input_size, facts.input_size
    reasons["input_size"] = "the size that the images have"
    size = int(min(max(8, round(side)), TINY_SIDE))
    return size, size


def _fit(config: Config, facts: BackboneFacts | None, sizes: Sequence[tuple[int, int]], reasons: dict[str, str]) -> Fit:
    if config.fit != "auto":
        return config.fit
    aspects = [max(size) / max(1, min(size)) for size in sizes]
    wide = float(np.quantile(aspects, 0.9))
    if facts is None or wide > _WIDE:
        long = f"one image in ten is {wide:.1f} times as long as wide"
        reasons["fit"] = "tiny images are used whole" if facts is None else long
        return "squash"
    reasons["fit"] = "how the weights were trained, and few images are more than twice as long as wide"
    return "center crop"


def resolve(config: Config, choice: ModelChoice, facts: TrainingFacts) -> Plan:
    """Everything else. Raises ConfigError for settings that contradict each other."""
    reasons = dict(choice.reasons)
    _check(config, choice, facts)
    auto = _Auto(config, reasons)
    batch_size = facts.num_train if config.batch_size == "all" else auto("batch_size", *_batch_size(choice, facts))
    transfer = _transfer(config, choice)
    head_epochs, epochs = _both_epochs(config, choice, facts, transfer, auto)
    steps = -(-steps_per_epoch(facts.num_train, batch_size) // config.accumulate)
    optimizer = auto("optimizer", "adamw", "robust where rates and scales are not tuned")
    schedule = auto("schedule", "cosine", "down to a hundredth of the peak")
    usual = usual_rates(optimizer)
    first = first_rate(optimizer, choice.model, pretrained=choice.pretrained, deep=facts.dense)
    lr = _rate(config, auto, *first)
    _norm(config, choice, batch_size, reasons)
    return Plan(
        task=facts.task,
        classes=facts.classes,
        data_digest=facts.data_digest,
        model=choice.model,
        pretrained=choice.pretrained,
        weights=config.weights,
        **_sources(facts),
        preprocessing=_standardised(choice, facts, reasons),
        epochs=epochs,
        head_epochs=head_epochs,
        batch_size=batch_size,
        **_as_asked(config),
        loss=facts.losses[0] if config.loss == "auto" else config.loss,
        **places.choices(config, facts.task, facts.architectures, reasons),
        optimizer=optimizer,
        transfer=transfer,
        frozen_stages=auto("frozen_stages", *_frozen_stages(choice, facts)),
        layer_decay=auto("layer_decay", 1.0, "the same rate for all"),
        schedule=schedule,
        lr=lr,
        body_lr=auto("body_lr", *_body_rate(choice, facts, lr, usual)),
        weight_decay=auto("weight_decay", usual.weight_decay, f"usual for {optimizer}"),
        label_smoothing=auto("label_smoothing", *_label_smoothing(choice, facts)),
        dropout=auto("dropout", 0.0, "the network's own"),
        clip_norm=auto("clip_norm", 1.0, "longer gradients are shortened to this"),
        warmup_steps=auto("warmup_steps", *_warmup(schedule, steps)),
        ema=auto("ema", *_ema(steps * (head_epochs + epochs))),
        patience=auto(
            "patience", int(np.clip(max(epochs, head_epochs) // 3, 3, 10)), "a third of the epochs, between 3 and 10"
        ),
        freeze_norm=_freeze_norm(config, choice, batch_size, reasons),
        augmentation=asdict(_augmentation(config, choice, facts, reasons)),
        vary_by_batch=choice.tiny and not facts.dense,
        probe="none" if facts.dense else "features" if choice.pretrained else "pixels",
        time_limit=config.time_limit,
        train_precision="fp32" if config.precision == "auto" else config.precision,  # measured before training
        precision=_precision(config, facts.inference_seconds, reasons),
        channels_last=_channels_last(choice, facts, reasons),
        device=facts.device,
        threads=auto("threads", facts.cores, "all cores that this process may use"),
        workers=auto("workers", max(2, min(8, facts.cores)), "threads that read images while the network computes"),
        seed=config.seed,
        reasons=reasons,
    )


@dataclass(frozen=True, slots=True)
class _Auto:
    """The user's value, or ours with its reason noted."""

    config: Config
    reasons: dict[str, str]

    def __call__(self, name: str, value: ValueT, reason: str) -> ValueT:
        given = getattr(self.config, name)
        if given != "auto":
            return cast(ValueT, given)
        self.reasons[name] = reason
        return value


def _frozen_stages(choice: ModelChoice, facts: TrainingFacts) -> tuple[int, str]:
    if facts.dense and facts.device == "cpu" and choice.pretrained and choice.model == EMBEDDED_MODEL:
        return places.FROZEN_ON_CPU, "what sees edges and colours stays: a step then takes half of the time"
    return 0, "all of them learn"


def _sources(facts: TrainingFacts) -> dict[str, Any]:
    return {"weights_source": facts.provenance.source, "weights_license": facts.provenance.license}


def _warmup(schedule: str, steps: int) -> tuple[int, str]:
    return (0, "one-cycle rises by itself") if schedule == "one-cycle" else (min(steps, 100), "an epoch, at most 100")


def _rate(config: Config, auto: _Auto, usual: float, reason: str) -> float:
    """The usual rate where one is to be found: the sweep begins from it (train/rate_finder.py)."""
    return usual if config.lr == "find" else auto("lr", usual, reason)


def _body_rate(choice: ModelChoice, facts: TrainingFacts, lr: float, usual: UsualRates) -> tuple[float, str]:
    if choice.pretrained:
        if facts.dense:
            return places.body_rate(lr)
        return lr * usual.body / usual.head, "a tenth of the head's: pretrained layers need little change"
    return lr, "the same as the head's: everything starts from scratch"


def _norm(config: Config, choice: ModelChoice, batch_size: int, reasons: dict[str, str]) -> None:
    suggested = suggest_norm(batch_size)
    if choice.pretrained and config.norm not in ("auto", "batch"):
        reasons["norm"] = (
            "as asked; the weights were trained with other statistics, and features suffer until all layers have learnt"
        )
    if config.norm == "auto" and not choice.pretrained and suggested != "batch":
        reasons["norm"] = f"the network's own; '{suggested}' is steadier with batches of {batch_size} (Wu & He 2018)"


def _as_asked(config: Config) -> dict[str, Any]:
    """The settings that mean the same in the plan, whatever the data."""
    names = ("accumulate", "focal_gamma", "momentum", "lookahead", "l1", "l2", "norm", "activation", "mixup", "cutmix")
    return {name: getattr(config, name) for name in (*names, "calibrate")}


def _transfer(config: Config, choice: ModelChoice) -> str:
    """What is learnt; for 'auto' the run looks at the evidence of the probe before it trains (train/transfer.py)."""
    if not choice.pretrained:
        return "scratch"
    if config.transfer != "auto":
        return config.transfer
    if config.epochs == 0:
        return "head" if config.head_epochs not in ("auto", 0) else "probe"
    return "full"


def _both_epochs(
    config: Config, choice: ModelChoice, facts: TrainingFacts, transfer: str, auto: _Auto
) -> tuple[int, int]:
    """(of the head alone, of all layers)"""
    if transfer in ("probe", "svm"):
        return 0, 0
    count, reason = _epochs(choice, facts)
    if transfer == "head":
        if config.head_epochs == "auto" and config.epochs != "auto":
            return config.epochs, 0
        return auto("head_epochs", count, reason), 0
    if transfer == "scratch":
        return 0, auto("epochs", count, reason)
    settled = (
        "warm-up protects the pretrained layers" if facts.dense else "the head starts from the probe, which has settled"
    )
    return auto("head_epochs", 0, settled), auto("epochs", count, reason)


def _check(config: Config, choice: ModelChoice, facts: TrainingFacts) -> None:
    if not choice.pretrained and config.transfer not in ("auto", "full"):  # all layers learn from scratch as well
        raise ConfigError(
            f"transfer = '{config.transfer}' needs pretrained weights, and '{choice.model}' starts from scratch"
        )
    if facts.dense:
        return places.check(config, facts.task)
    _check_transfer(config)
    if config.epochs == 0 and not choice.pretrained:
        raise ConfigError(
            f"epochs = 0 leaves '{choice.model}' untrained: a linear probe needs a pretrained model, such as "
            f"--model {EMBEDDED_MODEL}"
        )
    if config.head_epochs not in ("auto", 0) and not choice.pretrained:
        raise ConfigError("head_epochs trains the head of a pretrained model alone; this model starts from scratch")


def _check_transfer(config: Config) -> None:
    """Raises ConfigError for settings of the training loop beside a transfer without one."""
    if config.transfer in ("full", "head") and config.epochs == 0:
        raise ConfigError(f"transfer = '{config.transfer}' trains, and epochs = 0 does not: give one of them")
    if config.transfer not in ("probe", "svm"):
        return
    asked = {
        f"epochs = {config.epochs}": config.epochs not in ("auto", 0),
        f"head_epochs = {config.head_epochs}": config.head_epochs not in ("auto", 0),
        f"loss = '{config.loss}'": config.loss != "auto",
        "lr = 'find'": config.lr == "find",
        "imbalance = 'focal'": config.imbalance == "focal",
    }
    if config.transfer == "svm" and config.imbalance == "smote":
        raise ConfigError("imbalance = 'smote' is for the probe: with transfer = 'svm' use 'weights'")
    for setting, is_asked in asked.items():
        if is_asked:
            raise ConfigError(
                f"{setting} is of the training loop, which transfer = '{config.transfer}' leaves out: give one of them"
            )


def _batch_size(choice: ModelChoice, facts: TrainingFacts) -> tuple[int, str]:
    if facts.dense:
        return places.batch_size(facts.num_train, facts.device)
    largest = 64 if choice.tiny or facts.device != "cpu" else 32
    fitting = 2 ** int(np.log2(max(8, facts.num_train / 8)))
    size = int(min(largest, fitting))
    return size, f"{facts.num_train} training images give {steps_per_epoch(facts.num_train, size)} steps an epoch"


def _epochs(choice: ModelChoice, facts: TrainingFacts) -> tuple[int, str]:
    """Enough passes for a sound result, more for little data; on a CPU fine-tuning is kept short."""
    if facts.dense:
        return places.epochs(facts.num_train, facts.device)
    if choice.pretrained:
        low, high, images = (3, 15, 1500) if facts.device == "cpu" else (8, 30, 6000)
    else:
        low, high, images = 10, 40, 80_000
    epochs = int(np.clip(round(images / facts.num_train), low, high))
    return epochs, f"{facts.num_train} training images seen {epochs} times; more with --epochs"


def _standardised(choice: ModelChoice, facts: TrainingFacts, reasons: dict[str, str]) -> Preprocessing:
    if choice.pretrained:
        reasons["standardisation"] = "the mean and standard deviation that the weights were trained with"
        return choice.preprocessing
    reasons["standardisation"] = "mean and standard deviation of the training images alone"
    return replace(choice.preprocessing, mean=facts.channel_mean, std=facts.channel_std)


def _ema(steps: int) -> tuple[float, str]:
    decay = 0.99 if steps < 2000 else 0.999
    return decay, f"averages over about the last {1 / (1 - decay):.0f} of {steps} steps"


def _channels_last(choice: ModelChoice, facts: TrainingFacts, reasons: dict[str, str]) -> bool:
    if choice.tiny and facts.device != "cpu":
        return False
    reasons["channels_last"] = "the layout in memory that convolutions run fastest in"
    return True


def _freeze_norm(config: Config, choice: ModelChoice, batch_size: int, reasons: dict[str, str]) -> bool:
    if config.freeze_norm != "auto":
        return config.freeze_norm
    frozen = choice.pretrained and batch_size <= _SMALL_BATCH and config.norm in ("auto", "batch")
    if frozen:
        reasons["freeze_norm"] = f"batches of {batch_size} estimate the statistics worse than the weights' own"
    return frozen


def _label_smoothing(choice: ModelChoice, facts: TrainingFacts) -> tuple[float, str]:
    if facts.dense or not {"cross-entropy", "bce"} & set(facts.losses):
        return 0.0, "only classes of whole images are smoothed"
    if choice.pretrained:
        return 0.0, "the head starts from a probe whose confidence is fitted already"
    return 0.05, "keeps confidence in bounds (Szegedy et al. 2016)"


def _augmentation(config: Config, choice: ModelChoice, facts: TrainingFacts, reasons: dict[str, str]) -> Augmentation:
    if facts.dense:
        if is_auto(config.augment):
            reasons["augmentation"] = "flips, light, and things nearer and farther: objects move with their pixels"
        return Augmentation.parse(config.augment, preset="scenes")
    net = plain_net(choice.model)
    if is_auto(config.augment) and net is not None and net.kind != "cnn":
        reasons["augmentation"] = "none: without convolutions every shift is another image to learn"
        return Augmentation.none()
    if is_auto(config.augment):
        reasons["augmentation"] = (
            "small shifts: crops of tiny images lose too much" if choice.tiny else "random crops, flips and light"
        )
    return Augmentation.parse(config.augment, preset="tiny" if choice.tiny else "photos")


def _precision(config: Config, seconds: Mapping[str, float], reasons: dict[str, str]) -> str:
    if config.precision != "auto":
        return config.precision
    if not seconds:
        reasons["precision"] = "no fast bf16 was found here"
        return "fp32"
    best = min(seconds, key=lambda precision: seconds[precision])
    ratio = max(seconds.values()) / seconds[best]
    reasons["precision"] = f"measured here: {ratio:.2f} times as fast as the other"
    return best
