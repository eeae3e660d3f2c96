"""Choices of the augmentation that would change what images show: a mirrored arrow points the other way.

Measured on training images. A judge that has never seen an image names its class, and that of its mirror image (or of
what the choice in question makes of it). Tiny images are judged by their nearest neighbour among the pixels.
Photographs are judged by a ridge regression on what a pretrained network sees in each quarter of the picture: features
that are averaged over the whole picture hardly know left from right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import comb, isqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snellen.core.geometry import compose, rotation, translation
from snellen.core.plan import Plan
from snellen.core.seeds import keyed_permutation, keyed_seed
from snellen.data.augment import Augmentation, written_out
from snellen.data.image_sets import ImageSet
from snellen.data.loader import stack
from snellen.data.warp import warp_image
from snellen.nn.precision import arithmetic

Pixels = NDArray[np.uint8]
Classes = NDArray[np.int64]
Judged = tuple[Classes, Classes]  # what the judge says of the images as they are, and as a choice makes them

_MOST_TINY = 1500  # images compared: the answer needs no more
_MOST_NUMBERS = 20_000_000  # in them
_MOST_SEEN = 200  # passes through the network: two seconds of a light one
_MARGIN = 0.10  # the share of right neighbours that a choice may cost
_MUCH = 0.3  # of a class's images that look like another one: so many are no accident of the judge
_KNOWN = 0.4  # how much oftener it must name a class where it is right: one that guesses proves nothing
_ALPHA = 0.001  # of one choice, over all pairs of classes
_FOLDS = 4
_RIDGE = 0.1  # times the mean squared length of the standardised features
_SMALL_TURN = 30  # degrees: what stands upright is still seen as upright


@dataclass(frozen=True, slots=True, kw_only=True)
class Danger:
    """choice: the setting of Augmentation; sentence: what it does to the images, in numbers."""

    choice: str
    sentence: str


@dataclass(frozen=True, slots=True)
class _Move:
    choice: str
    words: str
    apply: Callable[[Pixels, int], Pixels]  # the image, and its number: every other one turns the other way


def label_dangers(
    model: nn.Module, train: ImageSet, classes: Classes, names: Sequence[str], plan: Plan
) -> list[Danger]:
    """The settings of ``plan.augmentation`` that make images of one class look like another; none is the usual answer.

    classes int [n] numbers each training image's class, ``names`` names them. Asks nothing where nothing is varied
    that has a direction, and of photographs only where the network is pretrained. About 200 passes through the network.
    """
    moves = list(_moves(Augmentation(**plan.augmentation)))
    if not moves or plan.epochs + plan.head_epochs == 0 or not (plan.vary_by_batch or plan.pretrained):
        return []
    width, height = plan.preprocessing.input_size
    comparable = min(_MOST_TINY, max(2, _MOST_NUMBERS // (3 * width * height)))
    most = comparable if plan.vary_by_batch else _MOST_SEEN // (1 + len(moves))
    chosen = _sample(classes, most)
    records = [train.records[i] for i in chosen]
    images = [train.store.prepared(record) for record in records]
    groups = np.array([keyed_seed("group", record.unit) for record in records])
    if plan.vary_by_batch:
        return _found(moves, _by_neighbours(np.stack(images), classes[chosen], groups), classes[chosen], names, _MARGIN)
    judge = _by_features(lambda pixels: _quarters(model, pixels, plan), images, classes[chosen], groups)
    return _found(moves, judge, classes[chosen], names, margin=1.0)


def heed(plan: Plan, dangers: Sequence[Danger], asked: str) -> tuple[Plan, list[str]]:
    """The plan without the choices in ``dangers``, but for those that ``asked`` (config.augment) gives by name.

    Also what is to be said: a sentence a danger.
    """
    named = written_out(asked)
    off = {danger.choice: 0.0 for danger in dangers if danger.choice not in named}
    said = [
        f"{danger.sentence}: {danger.choice} "
        + (
            f"is switched off; {danger.choice}=... in --augment overrides it"
            if danger.choice in off
            else "is kept, as asked"
        )
        for danger in dangers
    ]
    if not said:
        return plan, []
    reasons = {**plan.reasons, "augmentation": "; ".join([*filter(None, [plan.reasons.get("augmentation")]), *said])}
    return replace(plan, augmentation={**plan.augmentation, **off}, reasons=reasons), said


# --- what is tried

_MIRROR = _Move("hflip", "mirrored", lambda image, i: image[:, ::-1])


def _moves(settings: Augmentation) -> Iterator[_Move]:
    """One for each direction that ``settings`` may change."""
    if settings.hflip:
        yield _MIRROR
    if settings.vflip:
        yield _Move("vflip", "mirrored top to bottom", lambda image, i: image[::-1])
    turning = "rotate90" if settings.rotate90 else "rotate_degrees"
    reach = 180.0 if settings.rotate90 else settings.rotate_degrees
    if reach >= 90.0:
        yield _Move(turning, "turned by a quarter", lambda image, i: np.rot90(image, 1 if i % 2 else -1))
    elif reach >= _SMALL_TURN:
        yield _Move(
            turning, f"turned by {reach:.0f} degrees", lambda image, i: _turned(image, reach if i % 2 else -reach)
        )
    if reach >= 180.0:
        yield _Move(turning, "turned by half", lambda image, i: image[::-1, ::-1])


def _turned(image: Pixels, degrees: float) -> Pixels:
    """About its middle, the corners filled with what lies beside them mirrored: no colour gives the turn away."""
    height, width = image.shape[:2]
    margin = min(height, width) // 2
    padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    middle = (margin + width / 2, margin + height / 2)
    return warp_image(padded, compose(rotation(degrees, middle), translation(-margin, -margin)), (width, height))


def _sample(classes: Classes, most: int) -> NDArray[np.int64]:
    """Indices of at most ``most`` images, of every class alike as far as it has them."""
    order = keyed_permutation(len(classes), "label safety")
    rank = np.empty(len(classes), np.int64)
    for kind in np.unique(classes):
        of_kind = order[classes[order] == kind]
        rank[of_kind] = np.arange(len(of_kind))
    return np.asarray(np.sort(order[np.argsort(rank[order], kind="stable")][:most]))


# --- who judges


def _by_neighbours(images: Pixels, classes: Classes, groups: NDArray[Any]) -> Callable[[_Move], Judged]:
    """By the class of the most similar image of another group."""
    known = _normalised(images)
    apart = groups[:, None] != groups

    def nearest(queries: NDArray[np.float32]) -> Classes:
        return np.asarray(classes[np.where(apart, queries @ known.T, -np.inf).argmax(1)])

    plain = nearest(known)

    def judge(move: _Move) -> Judged:
        return plain, nearest(_normalised(np.stack([move.apply(image, i) for i, image in enumerate(images)])))

    return judge


def _normalised(images: Pixels) -> NDArray[np.float32]:
    flat = images.reshape(len(images), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6))


def _by_features(
    see: Callable[[Sequence[Pixels]], Tensor], images: Sequence[Pixels], classes: Classes, groups: NDArray[Any]
) -> Callable[[_Move], Judged]:
    """By ridge regressions on the images' features, each fitted without the groups that it judges."""
    features = see(images)
    folds = groups % _FOLDS
    wanted = nn.functional.one_hot(torch.from_numpy(classes)).double()

    def say(seen: Tensor) -> Classes:
        said = np.full(len(classes), -1)
        for fold in np.unique(folds):
            held_out = torch.from_numpy(folds == fold)
            if not bool(held_out.all()):
                said[folds == fold] = _ridge(features[~held_out], wanted[~held_out], seen[held_out])
        return said

    plain = say(features)
    return lambda move: (plain, say(see([move.apply(image, i) for i, image in enumerate(images)])))


def _ridge(features: Tensor, wanted: Tensor, seen: Tensor) -> Classes:
    """features [n, d] and what they should give [n, k]; the class that ``seen`` [m, d] gives, [m]. In closed form."""
    mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
    known, new = ((each - mean) / std for each in (features, seen))
    likeness = known @ known.T
    likeness += _RIDGE * likeness.diagonal().mean() * torch.eye(len(known), dtype=known.dtype)
    average = wanted.mean(0)
    answers = new @ known.T @ torch.linalg.solve(likeness, wanted - average) + average
    return np.asarray(answers.argmax(1).numpy())


def _quarters(model: nn.Module, images: Sequence[Pixels], plan: Plan) -> Tensor:
    """What the backbone's last map shows in each quarter of the picture, float64 [n, 4 d]."""
    backbone = model.get_submodule("backbone")
    maps: list[Tensor] = []
    channels_last = "NHWC" in str(getattr(backbone, "output_fmt", "")).upper()

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        found = _as_map(output, channels_last)
        if found is not None:
            maps[:] = [found]

    handles = [module.register_forward_hook(keep) for module in backbone.modules()]
    device = torch.device(plan.device)
    was_training = model.training
    model.eval()
    parts = []
    try:
        with torch.inference_mode(), arithmetic(device, plan.precision):
            for start in range(0, len(images), 32):
                pixels = stack([np.ascontiguousarray(image) for image in images[start : start + 32]]).to(device)
                pooled = model.features(pixels)  # type: ignore[operator]
                seen = nn.functional.adaptive_avg_pool2d(maps[0].float(), 2) if maps else pooled
                parts.append(seen.flatten(1).cpu().double())
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)
    return torch.cat(parts)


def _as_map(output: Any, channels_last: bool) -> Tensor | None:
    """[n, c, h, w] of a layer's output, if it has places: a map, or the tokens of a square of patches."""
    if not isinstance(output, Tensor):
        return None
    if output.dim() == 3:
        side = isqrt(output.shape[1])  # tokens of the class, if any, come first
        output = output[:, -side * side :].reshape(len(output), side, side, -1).permute(0, 3, 1, 2)
    elif output.dim() == 4 and channels_last:
        output = output.permute(0, 3, 1, 2)
    return output if output.dim() == 4 and min(output.shape[2:]) > 1 else None


# --- what is found


def _found(
    moves: Sequence[_Move], judge: Callable[[_Move], Judged], classes: Classes, names: Sequence[str], margin: float
) -> list[Danger]:
    """At most one danger a choice."""
    dangers: dict[str, Danger] = {}
    for move in moves:
        plain, moved = judge(move)
        told = _confused(plain, moved, classes, names) or _unfamiliar(plain, moved, classes, margin)
        if told:
            dangers.setdefault(move.choice, Danger(choice=move.choice, sentence=f"{move.words}, {told}"))
    return list(dangers.values())


def _unfamiliar(plain: Classes, moved: Classes, classes: Classes, margin: float) -> str:
    before, after = np.mean(plain == classes), np.mean(moved == classes)
    return f"{after:.0%} of the images still look like their class, of {before:.0%}" if after < before - margin else ""


def _confused(plain: Classes, moved: Classes, classes: Classes, names: Sequence[str]) -> str:
    """Two classes that change places, in words; nothing where none do.

    Exact and paired, as McNemar's test: of the images of two classes that are taken for the other class either as they
    are or as they were moved, and rightly in the other state, most must be so as they were moved. Corrected for those
    pairs of classes alone that have enough such images to say anything (Tarone 1990).
    """
    tests: Counter[tuple[int, int]] = Counter()
    swapped: Counter[tuple[int, int]] = Counter()
    for own, before, after in zip(classes.tolist(), plain.tolist(), moved.tolist(), strict=True):
        if (before == own) != (after == own):
            pair = tuple(sorted((own, after if before == own else before)))
            tests[pair] += 1
            swapped[pair] += before == own
    possible = [0.5**num for num in tests.values()]
    count = next((k for k in range(1, len(tests) + 1) if sum(p <= _ALPHA / k for p in possible) <= k), 1)
    worst = ("", _MUCH)
    for (a, b), num in tests.items():
        chance = sum(comb(num, n) for n in range(swapped[a, b], num + 1)) / 2**num
        for one, other in ((a, b), (b, a)) if chance <= _ALPHA / count else ():
            of_one = classes == one
            known = np.mean(plain[of_one] == one) - np.mean(plain[classes == other] == one)
            after, before = int((moved[of_one] == other).sum()), int((plain[of_one] == other).sum())
            rise = (after - before) / max(1, int(of_one.sum()))
            if rise > worst[1] and known > _KNOWN:
                seen = f"{after} of {of_one.sum()} images of '{names[one]}' look like '{names[other]}'"
                worst = (f"{seen}, {before} as they are", rise)
    return worst[0]
