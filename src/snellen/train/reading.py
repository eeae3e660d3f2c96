"""The data, read at the size that the model needs. No torch: it is still being imported meanwhile."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.device import available_cores, available_memory, choose_device
from snellen.core.errors import WeightsError
from snellen.core.plan import Plan
from snellen.data.augment import Augmentation
from snellen.data.store import ImageStore
from snellen.data.survey import Survey, image_sizes, read_listing, survey, task_of
from snellen.nn.published import check_model
from snellen.tasks.base import create_task
from snellen.train.resolve import ModelChoice, choose_model

_MEMORY_SHARE = 0.4  # of what is free, for decoded pixels


@dataclass(frozen=True, slots=True)
class TrainingData:
    survey: Survey
    store: ImageStore
    choice: ModelChoice


def read_data(config: Config, cache: Path, console: Console) -> TrainingData:
    """Read the headers to learn the size that is needed, then every image once.

    Raises DataError, ConfigError, WeightsError: before the images are read, where they are not to blame.
    """
    workers = max(2, available_cores())
    Augmentation.parse(config.augment)  # what is wrong in it is told before the images are read
    name, listing = read_listing(config, cache, console)
    task = create_task(task_of(config, listing), ())
    check_model(config, task.name, task.architectures)
    dense = task.dense
    choice = choose_model(config, image_sizes(listing.records, workers), dense=dense)
    if config.weights is not None and not Path(config.weights).is_file():
        raise WeightsError(f"no weights file at {config.weights}: check --weights")
    if config.device not in ("auto", "cpu"):
        choose_device(config.device)
    _load_ahead()
    store = _store(config, choice, dense)
    min_side = choice.preprocessing.decode_min_side
    known = survey(
        name, listing, config, console=console, workers=workers, cache=cache, min_side=min_side, keep=store.keep
    )
    store.forget_sources({row.id for row in known.manifest.rows if row.split != "train"})
    if choice.tiny and not dense and config.model == "auto" and config.pretrained:
        from snellen.train.sizing import size_to_data  # torch: the thread has it by now

        choice = size_to_data(config, choice, known, store, console)
        if not choice.tiny:  # tiny files are decoded again in no time, when they are needed
            store = _store(config, choice, dense)
    return TrainingData(known, store, choice)


def as_planned(config: Config, plan: Plan) -> Config:
    """The settings of a run that goes on, with the network that it has: nothing is chosen again."""
    size = plan.preprocessing.input_size
    return config.model_copy(update={"model": plan.model, "input_size": size, "fit": plan.preprocessing.fit})


def _store(config: Config, choice: ModelChoice, dense: bool) -> ImageStore:
    return ImageStore(
        preprocessing=choice.preprocessing,
        budget=int(_MEMORY_SHARE * available_memory()),
        keep_sources=(dense or not choice.tiny) and config.epochs != 0,
    )


def _load_ahead() -> None:
    """Start importing what every training run needs while the images are being read: torch takes seconds."""

    def load() -> None:
        import scipy.optimize  # noqa: F401
        import torch  # noqa: F401

    threading.Thread(target=load, name="snellen-imports", daemon=True).start()
