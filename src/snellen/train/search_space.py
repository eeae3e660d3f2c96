"""Which settings a search may choose, and from what. No torch: a search space is checked before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snellen.core.config import Config
from snellen.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from optuna.trial import Trial

DEFAULT_SPACE = ("lr=1e-4..1e-2", "weight_decay=1e-4..0.3", "label_smoothing=0..0.2", "mixup=0|0.2", "dropout=0..0.5")
_FIXED = (
    *("data", "images", "task", "split", "groups", "folds", "fold", "repeats", "test", "seed", "split_seed"),
    *("cache", "device", "time_limit"),
)
_LOGARITHMIC = 10.0  # a range whose ends are this many times apart is searched evenly in its logarithm
_RANGE = re.compile(r"(?P<low>[-+.\deE]+)\.\.(?P<high>[-+.\deE]+)")


@dataclass(frozen=True, slots=True)
class Between:
    """A number from ``low`` to ``high``, both included."""

    low: float
    high: float
    whole: bool

    @property
    def logarithmic(self) -> bool:
        return self.low > 0 and self.high / self.low >= _LOGARITHMIC

    def suggest(self, trial: Trial, name: str) -> Any:
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.logarithmic)
        return trial.suggest_float(name, self.low, self.high, log=self.logarithmic)

    @property
    def ends(self) -> Sequence[Any]:
        return (int(self.low), int(self.high)) if self.whole else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of several values, as the user wrote them."""

    values: tuple[str, ...]

    def suggest(self, trial: Trial, name: str) -> Any:
        return trial.suggest_categorical(name, self.values)

    @property
    def ends(self) -> Sequence[Any]:
        return self.values


SearchSpace = Mapping[str, Between | OneOf]


def parse_space(written: Sequence[str], config: Config) -> SearchSpace:
    """``["lr=1e-4..1e-2", "optimizer=sgd|adamw"]`` -> what each setting may be.

    ``a..b`` is a range, of whole numbers if both ends are; from a factor of ten on it is searched logarithmically.
    ``a|b|c`` are choices. Raises ConfigError for an unknown setting, one that a search must not touch, or a value that
    the setting cannot have.
    """
    space: dict[str, Between | OneOf] = {}
    for entry in written:
        name, _, values = (part.strip() for part in entry.partition("="))
        name = name.replace("-", "_")
        if name not in Config.model_fields:
            raise ConfigError(f"search '{entry}' names no setting{did_you_mean(name, Config.model_fields)}")
        if name in _FIXED:
            raise ConfigError(f"search '{entry}': {name} says what is asked and cannot be searched over")
        space[name] = _values(entry, values)
        for end in space[name].ends:
            Config.of(**{**config.model_dump(), name: end})
    return space


def _values(entry: str, values: str) -> Between | OneOf:
    found = _RANGE.fullmatch(values)
    if found is None:
        choices = tuple(part.strip() for part in values.split("|"))
        if len(choices) < 2 or not all(choices):
            raise ConfigError(f"search '{entry}' leaves no choice: write NAME=1e-4..1e-2 or NAME=one|two")
        return OneOf(choices)
    try:
        low, high = float(found["low"]), float(found["high"])
    except ValueError:
        raise ConfigError(f"search '{entry}' has no numbers at the ends of its range") from None
    if not low < high:
        raise ConfigError(f"search '{entry}': the range must rise, as in lr=1e-4..1e-2")
    return Between(low, high, all(re.fullmatch(r"[-+]?\d+", end) for end in found.groups()))
