"""Answers of models that never were: healthy ones, some of them ugly, and ones with a planted fault."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from snellen.doctor.case import Answers, Case, Floats

Random = np.random.Generator


def softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def answers(
    rng: Random,
    n: int = 600,
    *,
    shares: Sequence[float] = (0.25, 0.25, 0.25, 0.25),
    spread: float = 3.5,
    temperature: float = 1.0,
    group: int = 1,
) -> Answers:
    """A model that knows the classes for what they are, Gaussian clouds in eight dimensions, and answers by their
    posterior, its logits divided by ``temperature``. Images of a group of ``group`` are almost the same."""
    k = len(shares)
    units = -(-n // group)
    truth = rng.choice(k, units, p=shares).repeat(group)[:n]
    centres = rng.normal(size=(k, 8)) * spread / np.sqrt(8)
    noise = rng.normal(size=(units, 8)).repeat(group, axis=0)[:n]
    features = centres[truth] + noise
    logits = features @ centres.T - 0.5 * (centres**2).sum(1) + np.log(shares)
    return Answers(
        probabilities=softmax(logits / temperature),
        truth=truth.astype(np.int64),
        ids=[f"{i}.jpg" for i in range(n)],
        features=features,
        facts={"camera": rng.choice(["a", "b"], n).tolist(), "light": rng.uniform(0, 1, n).tolist()},
        groups=[f"g{i // group}" for i in range(n)] if group > 1 else (),
    )


def healthy(seed: int) -> Case:
    """Validation and test of one model: balanced or mildly not, calibrated, of any size, in groups or not."""
    rng = np.random.default_rng(seed)
    n = int(rng.choice([10, 60, 200, 600, 1500]))
    k = int(rng.choice([2, 3, 8]))
    shares = rng.dirichlet(np.full(k, 20.0))
    both = answers(rng, 2 * n, shares=shares, spread=float(rng.uniform(3, 7)), group=int(rng.choice([1, 1, 4])))
    return Case(answers=halves(both, n), seed=seed)


def halves(both: Answers, n: int) -> dict[str, Answers]:
    return {"val": part(both, slice(0, n)), "test": part(both, slice(n, None))}


def part(told: Answers, rows: slice) -> Answers:
    assert told.features is not None
    return Answers(
        probabilities=told.probabilities[rows],
        truth=told.truth[rows],
        ids=told.ids[rows],
        features=told.features[rows],
        facts={name: column[rows] for name, column in told.facts.items()},
        groups=told.groups[rows],
    )
