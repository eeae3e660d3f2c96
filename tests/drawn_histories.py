"""Histories of trainings that never were: healthy ones, some of them ugly, and ones with a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from snellen.doctor.case import Floats, History

Random = np.random.Generator

_VAL_FLOOR = 0.4


def lingering(rng: Random, n: int, inertia: float) -> Floats:
    """Noise of variance 1 of which a share lingers from one value to the next."""
    noise = rng.normal(size=n)
    for i in range(1, n):
        noise[i] = inertia * noise[i - 1] + np.sqrt(1 - inertia**2) * noise[i]
    return noise


def drawn(
    rng: Random,
    *,
    epochs: int,
    train_floor: float = 0.1,
    speed: float = 8.0,
    noise: float = 0.03,
    inertia: float = 0.3,
    steps_per_epoch: int = 30,
    step_noise: float = 0.3,
) -> History:
    """Losses that fall from ln 10 to their floors, ``speed`` times e-fold over the training, with noise that is a share
    of the loss. Scores follow the validation loss."""
    start, time = np.log(10), np.arange(1, epochs + 1) / epochs
    steps = np.arange(epochs * steps_per_epoch)
    train = train_floor + (start - train_floor) * np.exp(-speed * time)
    val = (_VAL_FLOOR + (start - _VAL_FLOOR) * np.exp(-speed * time)) * np.exp(noise * lingering(rng, epochs, inertia))
    scores = np.clip(1 - val / start + 0.01 * rng.normal(size=epochs), 0.05, 1)
    course = np.interp(steps / steps_per_epoch, np.arange(epochs + 1), np.concatenate([[start], train]))
    heavy = rng.gamma(1 / step_noise**2, step_noise**2, len(steps))
    return History(
        steps=steps.astype(np.float64),
        step_losses=course * heavy,
        gradient_norms=rng.lognormal(0, 0.5, len(steps)),
        rates=np.full(len(steps), 1e-3),
        epochs=np.arange(1, epochs + 1).astype(np.float64),
        train_losses=train * np.exp(0.3 * noise * rng.normal(size=epochs)),
        val_losses=val,
        train_scores=np.clip(1 - train / start, 0, 1),
        val_scores=scores,
        best_epoch=int(scores.argmax()) + 1,
    )


def with_rates(rng: Random, epochs: int, shape: Callable[[Floats], Floats], follow: float = 0.5) -> History:
    """A training whose losses rise and fall with its learning rate."""
    history = drawn(rng, epochs=epochs)
    time = (history.steps + 0.5) / len(history.steps)
    rates = shape(time)
    by_epoch = rates.reshape(epochs, -1).mean(axis=1)
    return replace(
        history,
        rates=rates,
        step_losses=history.step_losses * (1 + follow * rates / rates.max()),
        train_losses=history.train_losses * (1 + follow * by_epoch / rates.max()),
        val_losses=history.val_losses * (1 + follow * by_epoch / rates.max()),
    )


def converged(rng: Random) -> History:
    return drawn(rng, epochs=int(rng.integers(10, 100)), noise=float(rng.choice([0.01, 0.03, 0.1])))


def inert(rng: Random) -> History:
    """Validation that wanders slowly around its floor, while the training loss falls."""
    return drawn(rng, epochs=int(rng.integers(12, 80)), noise=float(rng.choice([0.02, 0.05])), inertia=0.7, speed=12)


def noisy(rng: Random) -> History:
    """A small validation set and batches of one or two images."""
    return drawn(rng, epochs=int(rng.integers(8, 60)), noise=0.2, inertia=0.0, step_noise=1.5, steps_per_epoch=60)


def short(rng: Random) -> History:
    return drawn(rng, epochs=int(rng.integers(1, 8)), speed=2)


def cosine(rng: Random) -> History:
    return with_rates(rng, int(rng.integers(10, 60)), lambda time: 1e-3 * (1 + np.cos(np.pi * time)) / 2)


def restarts(rng: Random) -> History:
    cycles = int(rng.integers(2, 5))
    offset = float(rng.uniform(0, 1))
    return with_rates(rng, 60, lambda time: 1e-3 * (1 + np.cos(np.pi * ((time * cycles + offset) % 1))) / 2 + 1e-6)


def cyclic(rng: Random) -> History:
    cycles, offset = float(rng.uniform(1.5, 5)), float(rng.uniform(0, 1))
    return with_rates(rng, 60, lambda time: 1e-3 * np.abs((time * cycles + offset) % 1 - 0.5) + 1e-5, 1.0)


def one_cycle(rng: Random) -> History:
    return with_rates(rng, 40, lambda time: 1e-3 * np.minimum(time / 0.3, (1 - time) / 0.7) + 1e-7)


def on_plateau(rng: Random) -> History:
    """The rate is divided by ten whenever the loss has come to rest, for the third time at half of the steps."""
    history = drawn(rng, epochs=60, speed=16, train_floor=0.5)
    rates = 1e-3 * 0.1 ** np.searchsorted([0.3, 0.42, 0.55], (history.steps + 0.5) / len(history.steps))
    return replace(history, rates=rates)


def fine_tuned(rng: Random) -> History:
    """It starts from a fitted head: nothing is left to fall."""
    history = drawn(rng, epochs=20, speed=0.5)
    level = 0.3 * rng.gamma(4, 0.25, len(history.steps))
    train, val = 0.3 * np.exp(0.02 * rng.normal(size=20)), 0.4 * np.exp(0.03 * lingering(rng, 20, 0.3))
    return replace(history, step_losses=level, train_losses=train, val_losses=val)


def interpolating(rng: Random) -> History:
    """Losses of single images that fall over orders of magnitude, with a hard image now and then."""
    history = drawn(rng, epochs=30, train_floor=1e-4, step_noise=1.0)
    hard = rng.random(len(history.steps)) < 0.01
    return replace(history, step_losses=np.where(hard, rng.exponential(1.0, len(hard)), history.step_losses))


HEALTHY = (
    converged,
    inert,
    noisy,
    short,
    cosine,
    restarts,
    cyclic,
    one_cycle,
    on_plateau,
    fine_tuned,
    interpolating,
)


def over_fitted(rng: Random, *, score_falls: bool = True) -> History:
    history = drawn(rng, epochs=40, speed=20, train_floor=0.01, noise=0.02)
    late = np.clip(history.epochs - 10, 0, None) / 30
    scores = history.val_scores - (0.12 * late if score_falls else 0)
    train = history.train_losses * (1 - 0.6 * late)
    return replace(history, val_losses=history.val_losses * (1 + 0.8 * late), val_scores=scores, train_losses=train)


def unfinished(rng: Random) -> History:
    return drawn(rng, epochs=40, speed=1.2, noise=0.01, inertia=0.0)


def flat(rng: Random) -> History:
    history = drawn(rng, epochs=20, speed=0.0, noise=0.005, step_noise=0.1)
    return replace(history, val_scores=np.full(20, 0.1))


def diverged(rng: Random) -> History:
    history = drawn(rng, epochs=20, speed=0.0)
    grown = 1 + 4 * np.clip(history.steps / len(history.steps) - 0.1, 0, None)
    return replace(
        history,
        step_losses=history.step_losses * grown,
        gradient_norms=history.gradient_norms * grown**4,
        val_losses=history.val_losses * np.linspace(1.1, 5, 20),
        val_scores=np.linspace(0.12, 0.1, 20),
    )


def spent_early(rng: Random) -> History:
    """A cosine of half the length: the loss falls and then stands."""
    history = drawn(rng, epochs=40, step_noise=0.1)
    time = (history.steps + 0.5) / len(history.steps)
    rates = 1e-3 * (1 + np.cos(np.pi * np.minimum(1, 2 * time))) / 2
    course = 0.9 + 1.4 * np.exp(-3 * np.minimum(time, 0.45))
    noise = rng.gamma(100, 0.01, len(time))
    return replace(history, rates=rates, step_losses=course * noise, train_scores=np.zeros(0))


def spiked(rng: Random) -> History:
    """One broken image is in a batch of each epoch."""
    history = drawn(rng, epochs=12, step_noise=0.1)
    order = [rng.permutation(120) for _ in range(12)]
    images = [[f"{i}.jpg" for i in batch] for epoch in order for batch in epoch.reshape(30, 4)]
    bad = np.array(["7.jpg" in batch for batch in images])
    return replace(history, step_losses=np.where(bad, 30.0, history.step_losses), step_images=images)
