"""A number that says how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A metric with the n it rests on and its 95 % interval.

    value, low, high  the metric's own units (0..1 for rates); low and high are None where no interval was asked for
    n                 how many images (or label decisions) it was computed over
    method            how the interval was made: 'wilson', 'bootstrap', 'bootstrap over groups', or 'none'
    """

    value: float
    n: int
    low: float | None = None
    high: float | None = None
    method: str = "none"

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.value:.4f} (n={self.n})"
        return f"{self.value:.4f} (95 % interval {self.low:.4f} to {self.high:.4f}, n={self.n})"

    def as_percent(self) -> str:
        """``94.8 % (95 % interval 90.0 to 97.3, n = 153)``"""
        if self.low is None or self.high is None:
            return f"{100 * self.value:.1f} % (n = {self.n})"
        return f"{100 * self.value:.1f} % (95 % interval {100 * self.low:.1f} to {100 * self.high:.1f}, n = {self.n})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Estimate:
        return cls(**fields)
