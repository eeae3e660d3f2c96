"""Losses that rise: over-fitting, over-confidence, divergence, numbers that are no numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from snellen.core.finding import Finding
from snellen.core.thresholds import FLOORS, alpha
from snellen.doctor.case import Case, Floats, History
from snellen.doctor.curves.series import as_words, both_known, is_share, known, level_around, level_at_end
from snellen.metrics.trend import block_means, trend

_FEWEST_EPOCHS = 8
_DIRECTION = 0.05  # p below which training loss is taken to fall; no verdict hangs on it alone
_FEWEST_STEPS = 100
_FIRST_STEPS = 20
_TIMES_START = 1.5
_TIMES_GRADIENT = 100.0
_BLOCKS = 20  # of the last half of the steps


def loss_not_finite(case: Case) -> Iterator[Finding]:
    """The training loss became infinite, or is no number from some step to the end.

    A history writes NaN where nothing was recorded, so a NaN between numbers is not counted.
    """
    history = case.history
    if history is None:
        return
    for unit, places, values in (
        ("step", history.steps, history.step_losses),
        ("epoch", history.epochs, history.train_losses),
    ):
        first = _first_broken(values)
        if first is None:
            continue
        at = int(places[first]) if len(places) == len(values) else first
        yield Finding(
            code="loss-not-finite",
            severity="serious",
            message=f"The training loss is {values[first]} from {unit} {at} on; nothing is learnt after that.",
            evidence={unit: at, "recorded": len(values), "last_finite": float(values[first - 1]) if first else None},
            advice="Look at the inputs of that step, lower the learning rate, clip gradients, and compute the loss in "
            "single precision.",
        )
        return


def _first_broken(values: Floats) -> int | None:
    finite = np.isfinite(values)
    if not finite.any():
        return 0 if np.isinf(values).any() else None
    infinite = np.flatnonzero(np.isinf(values))
    after = int(np.flatnonzero(finite)[-1]) + 1
    candidates = [int(infinite[0])] if len(infinite) else []
    candidates += [after] if len(values) - after >= 2 else []
    return min(candidates, default=None)


def overfitting(case: Case) -> Iterator[Finding]:
    """The validation loss rises after its minimum while the training loss falls.

    Where the validation score falls too it is over-fitting; where the score holds, confidence is all that is spoilt.
    Where the training loss rises too, as it does when a cyclic learning rate rises, nothing is said.
    """
    history = case.history
    if history is None or len(history.epochs) < _FEWEST_EPOCHS:
        return
    train, val = both_known(history.train_losses, history.val_losses)
    if len(val) < _FEWEST_EPOCHS:
        return
    lowest = int(val.argmin())
    least, end = level_around(val, lowest), level_at_end(val[lowest:])
    rise = trend(val[lowest:])
    grown = end / least - 1 if least > 0 else 0.0
    falls = trend(train[lowest:])
    if rise.p_rise > alpha("overfitting") or grown < FLOORS["loss"] or falls.p_fall > _DIRECTION:
        return
    evidence = {
        "p": rise.p_rise,
        "lowest_val_loss": least,
        "last_val_loss": end,
        "epochs_since": len(val) - 1 - lowest,
        "train_loss_change": float(train[-1] - train[lowest]),
    }
    fallen = _fallen_score(history)
    yield _over_confident(grown, evidence) if fallen is None else _overfitting(history, fallen, evidence)


def _fallen_score(history: History) -> tuple[float, float, int] | None:
    """Best level of the validation score, its last level and the epoch of the best; None where it has not fallen."""
    scores, epochs = both_known(history.val_scores, history.epochs)
    if len(scores) < _FEWEST_EPOCHS:
        return None
    best = int(scores.argmax())
    top, end = level_around(scores, best), level_at_end(scores[best:])
    floor = FLOORS["accuracy"] * (1.0 if is_share(scores) else max(abs(top), 1e-12))
    if top - end < floor or trend(scores[best:]).p_fall > alpha("overfitting"):
        return None
    return top, end, int(epochs[best])


def _overfitting(history: History, fallen: tuple[float, float, int], evidence: dict[str, float]) -> Finding:
    top, end, epoch = fallen
    share = is_share(known(history.val_scores))
    kept = history.best_epoch
    words = f"the weights of epoch {kept} were kept" if kept else "which weights were kept is not known"
    return Finding(
        code="overfitting",
        severity="warning",
        message=f"From epoch {epoch} on the validation score fell from {as_words(top, share)} to "
        f"{as_words(end, share)} while the training loss went on falling; {words}.",
        evidence={**evidence, "best_score": top, "last_score": end, "best_epoch": epoch, "kept_epoch": kept},
        advice="Keep the weights of the best epoch, stop earlier, and try more augmentation, more weight decay, a "
        "smaller model or more images.",
        certainty="observed",
        treatment={"settings": {"epochs": epoch}},
    )


def _over_confident(grown: float, evidence: dict[str, float]) -> Finding:
    return Finding(
        code="over-confident",
        severity="info",
        message=f"The validation loss rose by {grown:.0%} since its minimum while the validation score held: the "
        "answers do not get worse, but the model is surer of the wrong ones.",
        evidence=evidence,
        advice="If you use the probabilities, fit a temperature or keep the weights of the lowest validation loss; for "
        "the answers alone nothing needs to change.",
        certainty="observed",
        treatment={"settings": {"calibrate": "temperature"}},
    )


def unstable(case: Case) -> Iterator[Finding]:
    """The training loss stays above its start, or gradients grow a hundredfold while nothing is learnt."""
    history = case.history
    if history is None or _improved(history):
        return
    losses = known(history.step_losses)
    if len(losses) < _FEWEST_STEPS:
        return
    from scipy.stats import mannwhitneyu

    first, last = losses[:_FIRST_STEPS], block_means(losses[len(losses) // 2 :], _BLOCKS)
    start, end = float(np.median(first)), float(np.median(last))
    p = float(mannwhitneyu(last, block_means(first, 10), alternative="greater").pvalue)
    above = p <= alpha("unstable") and end >= _TIMES_START * start and last.min() > first.mean()
    growth = _gradient_growth(history)
    explodes = growth >= _TIMES_GRADIENT and float(np.mean(losses[-len(losses) // 10 :])) >= 0.9 * float(first.mean())
    if not above and not explodes:
        return
    reason = f"is {end / start:.3g} times what it was at the start" if above else "has not fallen"
    grown = f", and the gradients have grown {growth:.3g}-fold" if explodes else ""
    yield Finding(
        code="unstable",
        severity="warning",
        message=f"In the second half of the steps the training loss {reason}{grown}.",
        evidence={"p": p, "loss_at_start": start, "loss_later": end, "gradient_growth": growth},
        advice="Lower the learning rate to a third or a tenth, warm it up over the first steps, and clip gradients.",
        certainty="observed",
    )


def _improved(history: History) -> bool:
    """Whether validation got better between the first epochs and the last ones: then a higher loss is its own choice,
    as when augmentation is turned on late."""
    scores, losses = known(history.val_scores), known(history.val_losses)
    by_score = len(scores) >= 2 and level_at_end(scores) > scores[0]
    by_loss = len(losses) >= 2 and level_at_end(losses) < losses[0]
    return bool(by_score or by_loss)


def _gradient_growth(history: History) -> float:
    norms = known(history.gradient_norms)
    if len(norms) < _FEWEST_STEPS:
        return 1.0
    tenth = len(norms) // 10
    early = float(np.median(norms[tenth : 2 * tenth]))
    return float(np.median(norms[-tenth:])) / early if early > 0 else 1.0
