"""Faults: each makes a healthy plan ill, in three degrees, before the training begins.

``id`` is the fault's number in the catalogue. ``codes`` are the findings that count as its right name. They were
written down before any doctor was measured, but for names that the doctor learnt since: of short schedules, large
batches, faults of the step, and more data. ``harms`` says what it damages: the score on the hidden test, how far the
reported number is from that score, or the confidence (the log loss on the hidden test). An injected fault that damages
nothing is sub-clinical there: naming it is neither rewarded nor punished.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import fault_data as data
import fault_models as models
import fault_steps as steps
import plans
from plans import Plan

Harm = Literal["score", "report", "confidence"]
Host = tuple[str, str]  # world, recipe
USUAL: tuple[Host, ...] = (("shapes", "bn-sgd-cosine"), ("digits", "gn-adamw-onecycle"))
SHAPES, DIGITS = USUAL[:1], USUAL[1:]
PLAIN: tuple[Host, ...] = (("digits", "bn-sgd-plain"), ("shapes", "bn-sgd-plain"))
NO_NORM: tuple[Host, ...] = (("digits", "plain-adam-constant"), ("digits", "mlp-adamw-constant"))
FINETUNE: tuple[Host, ...] = (("shapes", "finetune-sgd"), ("digits", "finetune-sgd"))
SCENES: tuple[Host, ...] = (("scenes", "unet-adamw"),)
COUNTING: tuple[Host, ...] = (("counting", "count-bn-adam"),)
HARD: tuple[Host, ...] = (("shapes-ambiguous", "long-overfit"),)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """inject: (plan, level) -> plan. levels: mild, moderate, severe. in_data: an audit of the files can see it too.
    withheld: no doctor has a name for it; "something is wrong, and not what" is then the right answer."""

    name: str
    id: str
    codes: tuple[str, ...]
    inject: Callable[[Plan, Any], Plan]
    levels: tuple[Any, Any, Any]
    hosts: tuple[Host, ...] = USUAL
    harms: Harm = "score"
    in_data: bool = False
    withheld: bool = False


def _set(field: str) -> Callable[[Plan, Any], Plan]:
    return lambda plan, level: replace(plan, **{field: level})


def _times(field: str) -> Callable[[Plan, Any], Plan]:
    return lambda plan, level: replace(plan, **{field: type(getattr(plan, field))(getattr(plan, field) * level)})


def _fault(name: str, number: str, codes: str, inject: Any, levels: tuple[Any, Any, Any], **more: Any) -> Fault:
    return Fault(name=name, id=number, codes=tuple(codes.split()), inject=inject, levels=levels, **more)


_data = partial(_fault, in_data=True)
_AUGMENTS = "augmentation-hurts augmentation-changes-classes"
_LEAK = "images-on-both-sides leak-across-splits"
_VAL = "pixels-differ inputs-differ"
_SOFTMAX = "softmax-before-loss loss-head-mismatch loss-wrong-at-the-truth"
_FEW = "more-data-would-help too-few-images small-classes tiny-classes high-variance overfitting"

_DATA = (
    _data("classes-thinned", "D08", "imbalance small-classes tiny-classes class-collapse", data.thin, (10, 30, 100)),
    _data("classes-missing", "D09", "missing-classes class-collapse", data.drop_classes, (1, 2, 3)),
    _data("corner-mark", "D10", "shortcut-border shortcut-brightness", data.mark_corner, (0.8, 0.95, 1.0)),
    _data(
        "black-frames",
        "D12",
        "empty-images inputs-constant same-image-other-target conflicting-labels",
        data.blacken,
        (0.1, 0.3, 0.6),
    ),
    _data("few-images", "D13", _FEW, data.cut, (150, 80, 40)),
    _data(
        "memorised",
        "R03",
        _FEW,
        lambda plan, n: replace(data.cut(plan, n), augment=None, epochs=40),
        (300, 150, 80),
        hosts=HARD,
    ),
    _fault("pixels-not-finite", "O07", "inputs-not-finite loss-not-finite", data.not_finite, (1, 3, 10)),
    _data("labels-noisy", "L01", "suspect-labels", data.noise, (0.1, 0.2, 0.4)),
    _data(
        "copies-relabelled",
        "L02",
        "same-image-other-target conflicting-labels suspect-labels",
        data.conflict,
        (0.15, 0.3, 0.6),
    ),
    _data("classes-merged", "L03", "classes-confused suspect-labels", data.confuse, (0.3, 0.5, 0.8)),
    _data("val-classes-rolled", "L04", "class-map-permuted", data.roll_classes, (0.4, 0.7, 1.0), harms="report"),
    _data("labels-shuffled", "L05", "labels-carry-nothing suspect-labels", data.noise, (0.6, 0.8, 1.0)),
    _data("labels-shifted", "L05", "labels-shifted labels-carry-nothing", data.shift_labels, (1, -1, 2)),
    _data("val-in-train", "S01", _LEAK, data.leak, (0.2, 0.5, 0.9), hosts=HARD, harms="report"),
    _data(
        "oversampled-then-split",
        "S06",
        f"{_LEAK} exact-duplicates",
        data.oversample,
        (0.3, 0.6, 0.9),
        hosts=HARD,
        harms="report",
    ),
    _data(
        "val-darker",
        "S05",
        "sides-differ inputs-differ data-mismatch",
        data.darken_val,
        (0.6, 0.35, 0.2),
        harms="report",
    ),
    _data(
        "val-few-classes",
        "S05",
        "sides-differ missing-classes data-mismatch",
        data.drop_val_classes,
        (2, 3, 4),
        harms="report",
    ),
    _fault("camera-unseen", "E04", "failing-slice", data.new_camera, (0.08, 0.12, 0.2), hosts=SHAPES),
)

_PIXELS = (
    _fault(
        "inputs-not-scaled",
        "P01",
        "inputs-not-scaled rate-too-high bad-initialisation",
        data.scale_inputs,
        (20.0, 60.0, 255.0),
        hosts=NO_NORM,
    ),
    _fault(
        "inputs-scaled-twice",
        "P01",
        "inputs-not-scaled rate-too-low",
        data.scale_inputs,
        (1 / 30, 1 / 255, 1 / 65025),
        hosts=NO_NORM,
    ),
    _fault("val-not-normalised", "P03", _VAL, data.prepare_val_otherwise, ("mean", "std", "bytes")),
    _fault(
        "val-channels-reversed",
        "P02",
        f"channels-swapped {_VAL}",
        data.prepare_val_otherwise,
        ("turn", "swap", "reverse"),
        hosts=SCENES + SHAPES,
    ),
    _fault("val-resized-badly", "P03", _VAL, data.prepare_val_otherwise, ("blur", "half", "quarter")),
    _fault(
        "val-augmented",
        "P04",
        "validation-varies",
        lambda plan, level: (
            replace(plan, augment=plan.augment or plans.shifts, prepare=None, augment_val=True)
            if level == 0
            else replace(plan, augment=data.noisy(level), augment_val=True)
        ),
        (0, 0.7, 1.5),
    ),
    _fault("sorted-not-shuffled", "P05", "batches-not-shuffled", data.sort, (0.5, 0.9, 1.0)),
    _fault(
        "augmentation-turns",
        "P07",
        _AUGMENTS,
        data.turns,
        (0.5, 0.8, 1.0),
        hosts=(("digits", "bn-sgd-plain"), ("digits", "gn-adamw-onecycle")),
    ),
    _fault("augmentation-erases", "P07", _AUGMENTS, data.erases, (0.75, 0.85, 0.93)),
    _fault("targets-not-moved", "P08", _AUGMENTS, data.image_only_mirrors, (0.3, 0.5, 1.0), hosts=SCENES),
)

_MODEL = (
    _fault("body-cut-off", "M01", "unreached-parameters", models.cut, (0, 1, -1), hosts=PLAIN),
    _fault(
        "optimizer-incomplete",
        "M02",
        "optimizer-misses-parameters optimizer-holds-strangers",
        models.leave_out,
        ("head", "features", "all"),
    ),
    _fault("softmax-in-model", "M03", _SOFTMAX, models.end_with, ("softmax", "sigmoid", "twice")),
    _fault(
        "nll-of-logits", "M03", "loss-head-mismatch loss-wrong-at-the-truth loss-not-finite", steps.nll, (0.1, 0.5, 1.0)
    ),
    _fault(
        "weights-alike",
        "M04",
        "symmetric-weights bad-initialisation unreached-parameters",
        models.constant,
        (0.1, 0.01, 0.0),
        hosts=NO_NORM,
    ),
    _fault(
        "weights-huge",
        "M04",
        "bad-initialisation initial-loss loss-not-finite rate-too-high",
        models.spread,
        (0.3, 1.0, 3.0),
        hosts=NO_NORM,
    ),
    _fault(
        "units-dead", "M09", "bad-initialisation network-unfit unreached-parameters", models.bias, (-1.5, -3.0, -6.0)
    ),
    _fault(
        "validated-in-training-mode",
        "M05",
        "evaluation-in-training-mode",
        lambda plan, p: replace(plan, dropout=p, judge_mode="train"),
        (0.3, 0.5, 0.7),
        hosts=PLAIN,
        harms="report",
    ),
    _fault("norms-do-not-follow", "M06", "batch-norm-statistics", models.momentum, (0.003, 0.001, 0.0), hosts=PLAIN),
    _fault(
        "norms-of-tiny-batches",
        "M06",
        "batch-norm-statistics batch-too-small rate-too-high",
        _set("batch"),
        (4, 3, 2),
        hosts=PLAIN,
    ),
    _fault(
        "frozen-norms-move",
        "M07",
        "frozen-parts-move batch-norm-statistics",
        models.frozen_but_moving,
        (0.1, 0.5, 0.9),
        hosts=FINETUNE,
    ),
    _fault("dropout-never-off", "M08", "evaluation-not-deterministic", models.always_drop, (0.3, 0.5, 0.8)),
    _fault("deep-sigmoid", "M10", "network-unfit bad-initialisation rate-too-low", models.deep_sigmoid, (4, 8, 16)),
    _fault("network-too-small", "M11", "network-unfit", models.narrow, (3, 2, 1)),
    _fault("samples-mixed", "M12", "samples-mix", models.mix, (0.5, 1.0, 2.0)),
    _fault("stride-too-large", "M13", "network-unfit inputs-ignored", models.pool_first, (2, 4, 8)),
)

_STEPS = (
    _fault("rate-high", "O01", "rate-too-high loss-not-finite", _times("rate"), (10, 30, 100)),
    _fault("rate-low", "O02", "rate-too-low stopped-too-early", _times("rate"), (1 / 30, 1 / 300, 1 / 3000)),
    _fault(
        "schedule-short",
        "O03",
        "schedule-length schedule-unfit",
        _set("schedule_steps"),
        (0.4, 0.2, 0.08),
        hosts=(("digits", "gn-adamw-onecycle"), ("shapes", "gn-adamw-onecycle")),
    ),
    _fault(
        "rate-never-falls",
        "O04",
        "rate-too-high",
        lambda plan, times: replace(plan, schedule="constant", rate=plan.rate * times),
        (3, 6, 12),
    ),
    _fault("gradients-pile-up", "O05", "gradients-not-cleared", steps.pile_up, (4, 16, 10**9), hosts=PLAIN),
    _fault(
        "step-after-clearing",
        "O06",
        "step-changes-nothing unreached-parameters",
        steps.clear_too_soon,
        (0.9, 0.97, 1.0),
    ),
    _fault("log-of-zero", "O07", "loss-not-finite", steps.log_of_softmax, (30.0, 60.0, 120.0)),
    _fault("decay-strong", "O08", "decay-too-strong", _set("decay"), (0.02, 0.05, 0.2), hosts=PLAIN),
    _fault(
        "body-rate-high", "O09", "fine-tuning-hurts rate-too-high", _set("body_rate"), (0.3, 1.0, 3.0), hosts=FINETUNE
    ),
    _fault(
        "weights-not-loaded",
        "O10",
        "weights-not-loaded",
        lambda plan, n: replace(data.cut(plan, n), drop_keys="module."),
        (300, 200, 100),
        hosts=FINETUNE,
    ),
    _fault("batch-huge", "O11", "batch-too-large rate-too-low stopped-too-early", _times("batch"), (4, 8, 16)),
    _fault("loss-sign", "O13", "loss-prefers-wrong-answers", steps.negative, (0.01, 0.1, 1.0)),
    _fault("smoothing-strong", "O13", "loss-wrong-at-the-truth", _set("smoothing"), (0.7, 0.85, 0.95)),
    _fault("targets-broadcast", "O13", "loss-wrong-at-the-truth", steps.broadcast, (0.5, 0.8, 1.0), hosts=COUNTING),
    _fault(
        "clipping-strong", "O07", "clipping-too-strong rate-too-low", _set("clip"), (0.05, 0.01, 0.001), hosts=PLAIN
    ),
    _fault("dropout-strong", "M08", "dropout-too-strong", _set("dropout"), (0.8, 0.92, 0.98)),
    _fault("stopped-early", "R02", "stopped-too-early rate-too-low", _set("epochs"), (3, 2, 1)),
    _fault("score-too-kind", "E02", "metric-wrong", steps.kind_score, (1, 2, 3), harms="report"),
    _fault(
        "outputs-sharpened", "E05", "miscalibrated over-confident", models.sharpen, (3.0, 6.0, 12.0), harms="confidence"
    ),
)

_WITHHELD = tuple(
    _fault(name, "?", codes, inject, levels, withheld=True)
    for name, codes, inject, levels in (  # "something in the step, and not what" is right where it lies in the step
        ("gradient-noise", "unknown-cause step-does-not-fit", steps.noisy_gradients, (0.3, 1.0, 3.0)),
        ("layers-forgotten", "unknown-cause step-does-not-fit", steps.forget, (30, 15, 6)),
        ("one-bit-features", "unknown-cause", models.one_bit, (0.5, 0.9, 1.0)),
        ("targets-of-the-step-before", "unknown-cause step-does-not-fit", steps.late_targets, (0.6, 0.85, 1.0)),
    )
)


def _both(first: str, second: str) -> Fault:
    """Two faults at once; the name of either is right."""
    one, two = (
        next(each for each in (*_DATA, *_PIXELS, *_MODEL, *_STEPS) if each.name == name) for name in (first, second)
    )
    return Fault(
        name=f"{first}+{second}",
        id=f"{one.id}+{two.id}",
        codes=(*one.codes, *two.codes),
        inject=lambda plan, levels: two.inject(one.inject(plan, levels[0]), levels[1]),
        levels=tuple(zip(one.levels, two.levels, strict=True)),  # type: ignore[arg-type]
        hosts=one.hosts,
        harms=one.harms,
        in_data=one.in_data or two.in_data,
    )


_DOUBLE = (
    _both("rate-high", "labels-noisy"),
    _both("norms-do-not-follow", "decay-strong"),
    _both("stopped-early", "val-not-normalised"),
    _both("labels-noisy", "dropout-never-off"),
    _both("rate-low", "softmax-in-model"),
)

FAULTS: Mapping[str, Fault] = {
    fault.name: fault for fault in (*_DATA, *_PIXELS, *_MODEL, *_STEPS, *_WITHHELD, *_DOUBLE)
}
SEVERITIES = ("mild", "moderate", "severe")


def inject(fault: str, severity: str, plan: Plan) -> Plan:
    known = FAULTS[fault]
    return known.inject(plan, known.levels[SEVERITIES.index(severity)])
