"""What the stages of one training run hand to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from snellen.core.config import Config
from snellen.core.console import Console
from snellen.core.plan import Plan
from snellen.core.run import RunFolder
from snellen.data.image_sets import ImageSet
from snellen.data.survey import Survey
from snellen.evaluate import groups_of
from snellen.tasks.base import Task
from snellen.train.observers import Observer
from snellen.train.stopping import StopQuestion

FeatureListener = Callable[[Mapping[str, npt.NDArray[np.float32]]], None]


@dataclass(slots=True, kw_only=True)
class Session:
    """The run folder, the data, the plan and the network.

    sides        image sets by split; without the test images when the settings leave them sealed
    cache        folder for what is kept between runs
    on_features  is told what the frozen network saw in the images, by their ids, before the network is trained
    watch        observers beside those that every run has
    should_stop  a reason to end training beside Ctrl-C and the time limit
    """

    config: Config
    survey: Survey
    sides: Mapping[str, ImageSet]
    task: Task[Any]
    plan: Plan
    model: nn.Module
    run: RunFolder
    console: Console
    cache: Path
    on_features: FeatureListener | None = None
    watch: Sequence[Observer] = ()
    should_stop: StopQuestion | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of each image's file."""
        return {image_id: facts.sha256 for image_id, facts in self.survey.facts.items()}

    def groups(self, split: str) -> list[str] | None:
        return groups_of(self.sides[split].records)
