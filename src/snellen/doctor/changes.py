"""What can be changed about a training, by name: a fork tries it, and it is the treatment once it is shown to help."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from snellen.doctor import alter, house, imbalance, regions, schedules
from snellen.doctor.case import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing that is different.

    says             in a few words, what
    fits             whether it would change anything in this training
    mends_number     it puts right what is reported, and not what is learnt: no score of the model can show that
    judged_on        what is done to the validation of any arm of a trial, where the images as they are hide the harm
    """

    name: str
    says: str
    apply: Callable[[Training], Training]
    fits: Callable[[Training], bool] = field(default=lambda training: True)
    mends_number: bool = False
    judged_on: Callable[[Training], Training] = field(default=lambda training: training)


def _rate(factor: float, words: str) -> Change:
    name = f"rate*{factor:g}" if factor > 1 else f"rate/{1 / factor:g}"
    return Change(
        name=name,
        says=f"{words} the learning rate",
        apply=partial(alter.scale_rates, factor=factor),
        fits=lambda training: training.optimizer is not None,
    )


_ALL = (
    _rate(0.01, "a hundredth of"),
    _rate(0.1, "a tenth of"),
    _rate(1 / 3, "a third of"),
    _rate(3, "three times"),
    _rate(10, "ten times"),
    _rate(100, "a hundred times"),
    _rate(1000, "a thousand times"),
    Change(name="no decay", says="no weight decay", apply=partial(alter.scale_decay, factor=0.0), fits=alter.has_decay),
    Change(name="no dropout", says="no dropout", apply=alter.no_dropout, fits=alter.has_dropout),
    Change(
        name="body rate/10",
        says="a tenth of the rate for pretrained layers",
        apply=alter.slow_body,
        fits=alter.is_pretrained,
    ),
    Change(name="plain images", says="no augmentation", apply=alter.plain_images, fits=alter.has_plain),
    Change(name="shuffle", says="training images in a new order each epoch", apply=alter.shuffle),
    Change(name="standardised inputs", says="inputs of mean 0 and deviation 1", apply=alter.standardise),
    Change(
        name="plain validation", says="validation images prepared as those of training", apply=alter.validate_as_trained
    ),
    Change(name="channels reversed", says="the colour channels of validation in reverse", apply=alter.reverse_channels),
    Change(name="batch*8", says="eight times the batch", apply=partial(alter.merge, count=8)),
    Change(
        name="adjusted logits",
        says="a loss that makes up for the shares of the classes",
        apply=imbalance.adjust_logits,
        fits=imbalance.has_classes,
    ),
    *(
        Change(name=f"batch/{count}", says=f"batches of a {words} the size", apply=partial(alter.part, count=count))
        for count, words in ((4, "quarter of"), (16, "sixteenth of"))
    ),
    Change(name="house step", says="a plain step: clear, loss, backward, update", apply=alter.house_step),
    Change(name="all parameters", says="an optimizer that holds every parameter", apply=alter.all_parameters),
    Change(name="logits", says="a loss on logits", apply=alter.logits),
    Change(name="house loss", says="the usual loss", apply=alter.house_loss, fits=alter.known_question),
    Change(
        name="house evaluation",
        says="validation in evaluation mode",
        apply=alter.house_evaluation,
        mends_number=True,
    ),
    Change(name="house metric", says="the metric over the whole set", apply=alter.house_metric, mends_number=True),
    Change(name="new weights", says="weights drawn anew (He et al. 2015)", apply=alter.new_weights),
    Change(name="load weights", says="the pretrained weights", apply=alter.load_weights, fits=alter.is_pretrained),
    Change(name="frozen norms", says="frozen layers in evaluation mode", apply=alter.frozen_norms),
    Change(
        name="usual momentum",
        says="batch norms with momentum 0.1",
        apply=alter.usual_momentum,
        fits=alter.no_momentum_set,
    ),
    Change(
        name="re-estimated norms",
        says="statistics of batch norms taken anew",
        apply=alter.re_estimated,
        fits=alter.has_norms,
    ),
    Change(
        name="full schedule",
        says="a schedule over the steps really taken",
        apply=schedules.full_schedule,
        fits=schedules.has_schedule,
    ),
    Change(
        name="balanced classes",
        says="every class seen equally often",
        apply=imbalance.balance,
        fits=imbalance.has_classes,
    ),
    Change(name="twice as long", says="twice the epochs", apply=alter.longer),
    Change(
        name="dropouts off",
        says="functional dropouts that obey evaluation mode",
        apply=alter.dropouts_off,
        fits=alter.evaluates_at_random,
    ),
    Change(
        name="whole graph", says="nothing detached in the forward pass", apply=alter.whole_graph, fits=alter.cuts_graph
    ),
    Change(
        name="finite inputs",
        says="no images with NaN or infinity",
        apply=alter.finite_inputs,
        fits=alter.has_inputs_not_finite,
    ),
    Change(name="usual training", says="usual settings", apply=house.usual, fits=house.can_be_usual),
    Change(name="usual network", says="a usual network", apply=house.reference, fits=house.has_reference),
)
CHANGES: dict[str, Change] = {change.name: change for change in _ALL}


MORE_OF, PAINTED_OVER = "more of a slice", "a region painted over"


def change_of(treatment: Mapping[str, Any]) -> Change | None:
    """The change that a ``Finding.treatment`` names; None where it names none that is known.

    Beside the names of ``CHANGES``: ``{"change": MORE_OF, "rows": [places in ``plain``], "times": number}`` and
    ``{"change": PAINTED_OVER, "region": name}``.
    """
    name = str(treatment.get("change", ""))
    return _WITH_ARGUMENTS[name](treatment) if name in _WITH_ARGUMENTS else CHANGES.get(name)


def _more_of(treatment: Mapping[str, Any]) -> Change:
    rows, times = [int(row) for row in treatment["rows"]], float(treatment["times"])
    return Change(
        name=MORE_OF,
        says=f"{len(rows)} training images seen {times:.3g} times as often",
        apply=partial(alter.more_of, rows=rows, times=times),
        fits=alter.has_plain,
    )


def _painted_over(treatment: Mapping[str, Any]) -> Change:
    region = regions.REGIONS[str(treatment["region"])]
    return Change(
        name=PAINTED_OVER,
        says=f"the {region.name} of every image painted over",
        apply=partial(regions.painted_over, region=region),
        fits=regions.are_images,
        judged_on=partial(regions.validated_without, region=region),
    )


_WITH_ARGUMENTS: dict[str, Callable[[Mapping[str, Any]], Change]] = {
    MORE_OF: _more_of,
    PAINTED_OVER: _painted_over,
}
