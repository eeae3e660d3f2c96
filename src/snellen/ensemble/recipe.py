"""ensemble.json: what an ensemble's folder was made of, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from snellen.core.errors import RunError
from snellen.core.run import RunFolder

RECIPE_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """A member: its run as it was named, its checkpoint's sha256, and what it counts.

    file    its copy in the folder of the ensemble; None where there is none: of a soup, and of one that counts nothing
    weight  0..1, all together 1; of a soup the share of the mean of weights
    """

    name: str
    run: str
    sha256: str
    weight: float
    file: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    way: str
    members: tuple[Ingredient, ...]

    @property
    def counting(self) -> tuple[Ingredient, ...]:
        """Those that have a say."""
        return tuple(member for member in self.members if member.weight > 0)

    def to_json(self) -> dict[str, Any]:
        return {"version": RECIPE_VERSION, "way": self.way, "members": [asdict(each) for each in self.members]}

    @classmethod
    def read(cls, run: RunFolder) -> Recipe:
        """Raises RunError when there is none, or it is damaged or of a newer version."""
        return cls._of(run, run.read_json(RunFolder.RECIPE))

    @classmethod
    def _of(cls, run: RunFolder, content: Mapping[str, Any]) -> Recipe:
        try:
            if content["version"] > RECIPE_VERSION:
                raise RunError(
                    f"{run.path} is an ensemble of format version {content['version']}, newer than the "
                    f"{RECIPE_VERSION} this Snellen reads: update Snellen"
                )
            members: Sequence[Mapping[str, Any]] = content["members"]
            return cls(way=content["way"], members=tuple(Ingredient(**each) for each in members))
        except (KeyError, TypeError) as error:
            raise RunError(f"{run.path / RunFolder.RECIPE} is damaged: {error!r}") from None
