"""What the settings came to: every 'auto' resolved, with the reason. Made once by train/resolve.py, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from typing import Any

from snellen.core.errors import RunError
from snellen.core.preprocessing import Preprocessing

PLAN_VERSION = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides the weights of a run, given its images.

    lr, body_lr            peak learning rates of the head and of the backbone
    epochs, head_epochs    of all layers, and before that of the head alone
    warmup_steps           linear warm-up at the start of each phase, before the schedule
    time_limit             seconds for the whole run, or None
    freeze_norm            whether the batch norms of the backbone keep their statistics, gains and biases
    augmentation           settings of data.augment.Augmentation, by name
    vary_by_batch          tiny images are augmented a batch at a time
    probe                  what the linear baseline sees: 'features' of the frozen backbone, or 'pixels'
    train_precision, precision   'fp32' or 'bf16': arithmetic of the training step, and of inference
    reasons                for each choice that Snellen made itself, one sentence

    What the entries with a default mean is told by the setting of that name in core/config.py. A plan that was
    written before one of them existed is read as if it had the default: what Snellen did at the time.

    accumulate     batches of batch_size images whose gradients are averaged into one step
    class_weights  one factor a class on its loss; empty: all the same
    sampling       'as is', 'oversample' or 'undersample': which training images an epoch visits
    transfer       'probe', 'head', 'full', 'svm', or 'scratch' where nothing is pretrained
    frozen_stages  of nn.stages; layer_decay is the factor on the learning rate from each stage to the one before
    feature_stage  the stage whose pooled outputs the head reads; -1: what the backbone returns
    calibrate      'none' or 'temperature'; move_thresholds: decisions are fitted on validation as well
    target_mean, target_std   of the numbers to be predicted, over the training images; empty for classes
    architecture   what stands on the backbone where answers are about places; empty: a linear head
    loss_weights   factors on named terms of the loss; nms, nms_iou: how overlapping boxes are thinned out
    published      of a detector that came whole: what its network is built from, so that its files are not needed again
    """

    task: str
    classes: tuple[str, ...]
    data_digest: str
    model: str
    pretrained: bool
    weights: str | None
    weights_source: str
    weights_license: str
    preprocessing: Preprocessing
    epochs: int
    head_epochs: int
    batch_size: int
    optimizer: str
    lr: float
    body_lr: float
    weight_decay: float
    label_smoothing: float
    dropout: float
    clip_norm: float
    warmup_steps: int
    ema: float
    patience: int
    freeze_norm: bool
    augmentation: Mapping[str, Any]
    vary_by_batch: bool
    probe: str
    time_limit: float | None
    train_precision: str
    precision: str
    channels_last: bool
    device: str
    threads: int
    workers: int
    seed: int
    reasons: Mapping[str, str]
    accumulate: int = 1
    loss: str = "auto"
    focal_gamma: float = 2.0
    class_weights: tuple[float, ...] = ()
    sampling: str = "as is"
    smote: bool = False
    momentum: float = 0.9
    lookahead: bool = False
    schedule: str = "cosine"
    l1: float = 0.0
    l2: float = 0.0
    norm: str = "auto"
    activation: str = "auto"
    transfer: str = "full"
    frozen_stages: int = 0
    layer_decay: float = 1.0
    feature_stage: int = -1
    mixup: float = 0.0
    cutmix: float = 0.0
    calibrate: str = "none"
    move_thresholds: bool = False
    target_mean: tuple[float, ...] = ()
    target_std: tuple[float, ...] = ()
    architecture: str = ""
    loss_weights: Mapping[str, float] = field(default_factory=dict)
    mosaic: float = 0.0
    copy_paste: float = 0.0
    nms: str = "per class"
    nms_iou: float = 0.6
    published: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        choices = asdict(self)
        reasons = choices.pop("reasons")
        return {"version": PLAN_VERSION, "choices": choices, "reasons": reasons}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """Raises RunError for a plan of a newer version of Snellen, or one that is damaged."""
        if content.get("version", 0) > PLAN_VERSION:
            raise RunError(
                f"this plan has format version {content['version']}, newer than the {PLAN_VERSION} this Snellen reads: "
                "update Snellen"
            )
        choices = dict(content["choices"])
        known = {each.name: _is_needed(each) for each in fields(cls) if each.name != "reasons"}
        odd = sorted(choices.keys() - known.keys() | {name for name in known.keys() - choices.keys() if known[name]})
        if odd:
            raise RunError(f"the plan is damaged: missing or unknown entries {', '.join(odd)}")
        choices["preprocessing"] = Preprocessing.from_json(choices["preprocessing"])
        choices["optimizer"] = choices["optimizer"].lower()  # version 1 wrote AdamW
        for name in ("classes", "class_weights", "target_mean", "target_std"):
            choices[name] = tuple(choices.get(name, ()))
        return cls(**choices, reasons=content["reasons"])


def _is_needed(entry: Field[Any]) -> bool:
    return entry.default is MISSING and entry.default_factory is MISSING
