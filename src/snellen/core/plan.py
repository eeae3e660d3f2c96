"""What the settings came to: every 'auto' resolved, with the reason. Made once by train/resolve.py, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from snellen.core.errors import RunError
from snellen.core.preprocessing import Preprocessing

PLAN_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that decides the weights of a run, given its images.

    lr, body_lr            peak learning rates of the head and of the backbone
    epochs, head_epochs    of all layers, and before that of the head alone
    warmup_steps           linear warm-up at the start of each phase, then a cosine down to a hundredth
    time_limit             seconds for the whole run, or None
    freeze_norm            whether the batch norms of the backbone keep their statistics, gains and biases
    augmentation           settings of data.augment.Augmentation, by name
    vary_by_batch          tiny images are augmented a batch at a time
    probe                  what the linear baseline sees: 'features' of the frozen backbone, or 'pixels'
    train_precision, precision   'fp32' or 'bf16': arithmetic of the training step, and of inference
    reasons                for each choice that Snellen made itself, one sentence
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
        expected = {field.name for field in fields(cls)} - {"reasons"}
        if set(choices) != expected:
            odd = sorted(expected.symmetric_difference(choices))
            raise RunError(f"the plan is damaged: missing or unknown entries {', '.join(odd)}")
        choices["preprocessing"] = Preprocessing.from_json(choices["preprocessing"])
        choices["classes"] = tuple(choices["classes"])
        return cls(**choices, reasons=content["reasons"])
