"""What may be wrong with a training, and which changes would then cure it: what forks try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from snellen.doctor.case import Training
from snellen.doctor.clipping import clips_hard
from snellen.doctor.epochs import takes_few_steps
from snellen.doctor.imbalance import is_imbalanced


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """A cause, and the changes of which each would cure it if it were the one.

    holds  what else must be so
    alone  tried even where a usual training does no better: that has the same images, and so the same fault
    costs  how many times as much the training takes with it: it must gain as many times as much to be worth a warning,
           since there is hardly a training that would not gain a little from twice the time
    """

    code: str
    changes: tuple[str, ...]
    message: str
    advice: str
    holds: Callable[[Training], bool] = field(default=lambda training: True)
    alone: bool = False
    costs: float = 1.0


SUSPICIONS = (
    Suspicion(
        code="rate-too-high",
        changes=("rate/3", "rate/10", "rate/100"),
        message="The learning rate is too high",
        advice="Train with the lower rate, or warm up to this one.",
    ),
    Suspicion(
        code="rate-too-low",
        changes=("rate*3", "rate*10", "rate*100", "rate*1000"),
        message="The learning rate is too low for this many steps",
        advice="Train with the higher rate.",
    ),
    Suspicion(
        code="decay-too-strong",
        changes=("no decay",),
        message="The weight decay holds the weights down",
        advice="Lower the weight decay by a factor of ten or more.",
    ),
    Suspicion(
        code="dropout-too-strong",
        changes=("no dropout",),
        message="Dropout takes away more than the network can miss",
        advice="Lower the dropout, or leave it out.",
    ),
    Suspicion(
        code="bad-initialisation",
        changes=("new weights",),
        message="The network begins with weights that it cannot learn from",
        advice="Leave the weights as torch makes them, or draw them by He's rule.",
    ),
    Suspicion(
        code="inputs-not-scaled",
        changes=("standardised inputs",),
        message="The numbers that the network gets are on a scale that it learns badly from",
        advice="Standardise the inputs by the mean and deviation of the training images.",
    ),
    Suspicion(
        code="augmentation-hurts",
        changes=("plain images",),
        message="The augmentation takes away what the classes are told by",
        advice="Leave out the augmentation, then bring its operations back one by one.",
    ),
    Suspicion(
        code="imbalance",
        changes=("balanced classes", "adjusted logits"),
        message="Rare classes are not learnt beside the common ones",
        advice="Draw every class as often, or weight the loss by class; more images of the rare classes do more.",
        holds=is_imbalanced,
        alone=True,
    ),
    Suspicion(
        code="batch-too-large",
        changes=("batch/4", "batch/16"),
        message="The batches are so large that too few steps are taken",
        advice="Use smaller batches, or train for longer.",
        holds=takes_few_steps,
    ),
    Suspicion(
        code="batches-in-a-bad-order",
        changes=("shuffle",),
        message="The order of the training images holds training up",
        advice="Shuffle the training images in each epoch.",
    ),
    Suspicion(
        code="batch-too-small",
        changes=("batch*8",),
        message="The batches are too small for the normalisation or the rate",
        advice="Use larger batches, accumulate gradients, or replace batch norms by group norms.",
    ),
    Suspicion(
        code="clipping-too-strong",
        changes=("house step",),
        message="Gradients are clipped to less than a tenth of their length in most steps",
        advice="Clip at about the 90th percentile of the gradients' norms, or not at all.",
        holds=clips_hard,
    ),
    Suspicion(
        code="step-does-not-fit",
        changes=("house step",),
        message="Something in the training step holds training up: clipping, scaling or the order of its calls",
        advice="Clear the gradients, take the loss, go backward, update; then bring back one thing at a time.",
    ),
    Suspicion(
        code="loss-unfit",
        changes=("house loss",),
        message="The loss does not lead to what is asked for",
        advice="Use the usual loss of this question.",
    ),
    Suspicion(
        code="batch-norms-stand-still",
        changes=("usual momentum",),
        message="The batch norms do not follow what they normalise",
        advice="Give the batch norms their usual momentum of 0.1.",
    ),
    Suspicion(
        code="schedule-unfit",
        changes=("full schedule",),
        message="The schedule ends, falls or rises at the wrong time",
        advice="Fit the schedule to the number of steps that are taken.",
    ),
    Suspicion(
        code="stopped-too-early",
        changes=("twice as long",),
        message="Training ended while the network was still getting better",
        advice="Train for twice as many epochs.",
        costs=2.0,
    ),
)
# These make up for other faults as well: what is more particular goes before them when both help. Augmentation comes
# last, as it slows learning: where another rate or more time does as much, it is not at fault.
LESS_TELLING = (
    "rate-too-high",
    "step-does-not-fit",
    "loss-unfit",
    "batch-too-large",
    "rate-too-low",
    "stopped-too-early",
    "augmentation-hurts",
)

# What their changes do is to let a training learn sooner, which any helps that was made short.
QUICKENED = frozenset(
    {
        "rate-too-low",
        "stopped-too-early",
        "schedule-unfit",
        "augmentation-hurts",
        "dropout-too-strong",
        "decay-too-strong",
        "batch-too-small",
        "batch-too-large",
        "bad-initialisation",
    }
)
