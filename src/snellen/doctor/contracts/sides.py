"""Training and validation images: none on both sides, none with two targets, all prepared alike, validation fixed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snellen.core.finding import Finding
from snellen.doctor.case import Case
from snellen.doctor.contracts.passes import Pass, passes, same_but_for_rounding
from snellen.doctor.contracts.probing import NAMED

_SERIOUS = 0.01  # of the images: below it a result hardly moves
_FEWEST = 16
_DIFFERENT = 0.5  # of the images


def images_on_both_sides(case: Case) -> Iterator[Finding]:
    """Validation inputs that are equal, value for value, to a training input. Blank images do not count."""
    if case.training is None:
        return
    known = passes(case)
    val = known.val[0]
    trained = known.train[0].shown | (known.plain.shown if known.plain is not None else set())
    places = [
        i for i, (image, tells) in enumerate(zip(val.images, val.telling, strict=True)) if tells and image in trained
    ]
    if not places:
        return
    share = len(places) / len(val.images)
    yield Finding(
        code="images-on-both-sides",
        severity="serious" if share >= _SERIOUS else "warning",
        message=f"{len(places)} of {len(val.images)} validation images ({share:.1%}) are training images too.",
        advice="Take them out of one of the sides and measure again: the number that counts them is too high.",
        evidence={"count": len(places), "of": len(val.images), "share": share, "places": places[:NAMED]},
    )


def same_image_other_target(case: Case) -> Iterator[Finding]:
    """Equal inputs whose targets differ: at least one of them is wrong."""
    if case.training is None:
        return
    known = passes(case)
    sides: list[Pass] = [known.plain or known.train[0], known.val[0]]
    targets: dict[bytes, set[bytes]] = {}
    total = 0
    for side in sides:
        if len(side.images) != len(side.targets):
            continue
        for image, target, tells in zip(side.images, side.targets, side.telling, strict=True):
            total += 1
            if tells:
                targets.setdefault(image, set()).add(target)
    conflicts = sum(len(each) > 1 for each in targets.values())
    if not conflicts:
        return
    yield Finding(
        code="same-image-other-target",
        severity="serious" if conflicts >= _SERIOUS * total else "warning",
        message=f"{conflicts} images come up with more than one target among {total}.",
        advice="Decide which of the targets is right, or leave these images out.",
        evidence={"count": conflicts, "of": total},
    )


def pixels_differ(case: Case) -> Iterator[Finding]:
    """Training augments nothing, and yet its images are not those that validation's pipeline makes of the same files.

    What differs by rounding alone (another order of the same arithmetic) is the same.
    """
    if case.training is None or case.training.plain is None:
        return
    known = passes(case)
    plain, train = known.plain, known.train[0]
    if plain is None or not plain.whole or len(train.images) < _FEWEST or not known.repeats:
        return
    if not len(plain.images) or not (np.isfinite(plain.sketches).all() and np.isfinite(train.sketches).all()):
        return
    seen = set(plain.images)
    unknown = np.array([image not in seen for image in train.images])
    if unknown.mean() > _DIFFERENT:
        unknown &= ~same_but_for_rounding(train.sketches, plain.sketches)
    if unknown.mean() <= _DIFFERENT:
        return
    ours, theirs = (np.abs(side.sketches[:, :2]).mean(0) for side in (train, plain))
    ours[0], theirs[0] = train.sketches[:, 0].mean(), plain.sketches[:, 0].mean()
    yield Finding(
        code="pixels-differ",
        severity="serious",
        message="Training and validation prepare the same images differently: values have mean "
        f"{ours[0]:.3g} and spread {ours[1]:.3g} in training, {theirs[0]:.3g} and {theirs[1]:.3g} in validation.",
        advice="Use one preprocessing for both: size, crop, range, standardisation and order of the channels.",
        evidence={
            "share": float(unknown.mean()),
            "train": {"mean": float(ours[0]), "spread": float(ours[1])},
            "as_validation": {"mean": float(theirs[0]), "spread": float(theirs[1])},
        },
        treatment={"change": "plain validation"},
    )


def validation_varies(case: Case) -> Iterator[Finding]:
    """Two passes over validation show other inputs: augmentation, or another choice of images each time."""
    if case.training is None:
        return
    one, two = passes(case).val
    if len(one.images) < _FEWEST or not one.whole or not two.whole:
        return
    seen = set(one.images)
    new = np.array([image not in seen for image in two.images])
    if new.sum() < max(one.sizes) and new.mean() < _DIFFERENT:
        return  # drop_last with another order
    if np.isfinite(one.sketches).all() and np.isfinite(two.sketches).all():
        new &= ~same_but_for_rounding(two.sketches, one.sketches)
    if not new.any() or (new.sum() < max(one.sizes) and new.mean() < _DIFFERENT):
        return
    yield Finding(
        code="validation-varies",
        severity="warning",
        message=f"{new.sum()} of {len(new)} validation inputs are others in a second pass: validation is augmented, or "
        "drawn at random.",
        advice="Give validation the plain, fixed preprocessing, and always the same images.",
        evidence={"count": int(new.sum()), "of": len(new)},
        treatment={"change": "plain validation"},
    )
