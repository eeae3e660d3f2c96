"""What a frozen network sees in every image of a survey: the features that the audit's checks of content look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.core.record import Record
from snellen.core.seeds import keyed_permutation
from snellen.data.image_sets import ImageSet
from snellen.data.store import ImageStore
from snellen.data.survey import Survey
from snellen.metrics.held_out_classifier import HeldOutClassifier
from snellen.nn.catalog import EMBEDDED_MODEL, SMALL_RESNET
from snellen.tasks.base import TASKS, create_task
from snellen.train.build import build_network
from snellen.train.features import frozen_features, pixel_features
from snellen.train.resolve import TINY_SIDE, ModelChoice, choose_model
from snellen.train.sizing import ENLARGED_SIDE, plan_to_look

MOST_IMAGES = 6_000  # a minute on two cores; what a check shows on so many, more images would only show again
_MOST_TRIED = 600  # images, to tell which features say more of the classes
_FEWEST_TRIED = 50
_ANY_TASK = next(iter(TASKS))
_ANY_CLASSES = ("a", "b")  # the network is built for some question; its head is never asked

Features = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """of: float32 [d] by record id, of all images or of a sample of them; sentence: what they are, for the user."""

    of: Features
    sentence: str


def embed(survey: Survey, config: Config, cache: Path, console: Console) -> Embedding:
    """Features of at most ``MOST_IMAGES`` images through the built-in network; a second call finds them in ``cache``.

    Tiny images are enlarged for it, or their pixels are the features: whichever tells the classes apart better on
    training images. Raises WeightsError, ConfigError.
    """
    records = _sample(list(survey.records.values()), config.seed)
    sizes = [(survey.facts[record.id].width, survey.facts[record.id].height) for record in records]
    tiny = float(np.median([min(size) for size in sizes])) <= TINY_SIDE
    hashes = [survey.facts[record.id].sha256 for record in records]
    told = f"{len(records)} images" if len(records) == len(survey.records) else f"a sample of {len(records):,} images"
    if tiny:
        pixels = _pixels(records, config, sizes)
        tried = _tried(records)
        few = [records[i] for i in tried]
        if len(few) < _FEWEST_TRIED or not _tells_more(
            _through_network(few, [hashes[i] for i in tried], config, sizes, cache, console), pixels[tried], few
        ):
            return Embedding(of=_by_id(records, pixels), sentence=f"the pixels of {told}")
    features = _through_network(records, hashes, config, sizes, cache, console)
    return Embedding(of=_by_id(records, features), sentence=f"what {EMBEDDED_MODEL} sees in {told}")


def _through_network(
    records: Sequence[Record],
    hashes: Sequence[str],
    config: Config,
    sizes: Sequence[tuple[int, int]],
    cache: Path,
    console: Console,
) -> npt.NDArray[np.float32]:
    """float32 [n, d]"""
    asked = Config.of(data=config.data, seed=config.seed, device=config.device, model=EMBEDDED_MODEL)
    if float(np.median([min(size) for size in sizes])) <= TINY_SIDE:
        asked = asked.model_copy(update={"input_size": (ENLARGED_SIDE, ENLARGED_SIDE), "fit": "squash"})
    choice = choose_model(asked, sizes)
    plan = _plan(asked, choice)
    model, _ = build_network(plan, create_task(_ANY_TASK, _ANY_CLASSES))
    found = frozen_features(model, _images(records, choice), hashes, plan, cache, console)
    return np.asarray(found[max(found)].float().numpy())


def _pixels(records: Sequence[Record], config: Config, sizes: Sequence[tuple[int, int]]) -> npt.NDArray[np.float32]:
    asked = Config.of(data=config.data, seed=config.seed, device=config.device, model=SMALL_RESNET)
    choice = choose_model(asked, sizes)
    return np.asarray(pixel_features(_images(records, choice), _plan(asked, choice)).numpy())


def _images(records: Sequence[Record], choice: ModelChoice) -> ImageSet:
    """Without what is marked in them: their pixels are all that is asked for."""
    bare: list[Record] = [replace(record, objects=None, mask=None) for record in records]
    targets: list[Any] = [0] * len(bare)
    return ImageSet(
        records=bare,
        targets=targets,
        store=ImageStore(preprocessing=choice.preprocessing, budget=0, keep_sources=False),
    )


def _plan(config: Config, choice: ModelChoice) -> Plan:
    return plan_to_look(config, choice, create_task(_ANY_TASK, _ANY_CLASSES), MOST_IMAGES)


def _sample(records: Sequence[Record], seed: int) -> list[Record]:
    """In the order of the records."""
    order = keyed_permutation(len(records), "embedding", seed)[:MOST_IMAGES]
    return [records[i] for i in sorted(order.tolist())]


def _tried(records: Sequence[Record]) -> npt.NDArray[np.int64]:
    """Indices of training images with one class."""
    fit = np.array([i for i, each in enumerate(records) if each.split == "train" and len(each.labels) == 1], np.int64)
    return np.sort(fit[keyed_permutation(len(fit), "embedding tried")[:_MOST_TRIED]])


def _tells_more(one: npt.NDArray[Any], other: npt.NDArray[Any], records: Sequence[Record]) -> bool:
    """Whether the classes are told apart better by ``one`` than by ``other``, each [n, d]."""
    names, codes = np.unique(np.array([record.labels[0] for record in records], np.str_), return_inverse=True)
    units = [record.unit for record in records]

    def right(features: npt.NDArray[Any]) -> int:
        scores = HeldOutClassifier.of(features, codes, units).scores(codes, len(names))
        return int((scores.argmax(1) == codes).sum())

    return len(names) > 1 and right(one) > right(other)


def _by_id(records: Sequence[Record], features: npt.NDArray[np.float32]) -> Features:
    return {record.id: features[i] for i, record in enumerate(records)}
