"""Healthy recipes, as people write them; some look ill and are not. Each names the worlds on which it does well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from plans import Plan, mirrors, shifts
from worlds import WORLDS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    worlds: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def _recipe(name: str, worlds: str, **settings: Any) -> Recipe:
    return Recipe(name=name, worlds=tuple(worlds.split()), settings=settings)


_ADAMW = {"optimizer": "adamw", "rate": 5e-3, "decay": 0.01}
_ADAM = {"optimizer": "adam", "rate": 3e-3, "decay": 0.0}

RECIPES = {
    recipe.name: recipe
    for recipe in (
        _recipe("bn-sgd-cosine", "shapes shapes-dark shapes-grey textures patches", augment=shifts),
        _recipe("bn-sgd-plain", "digits shapes textures patches"),
        _recipe(
            "gn-adamw-onecycle",
            "digits shapes shapes-dark textures patches",
            norm="group",
            schedule="onecycle",
            **_ADAMW,
        ),
        _recipe(
            "plain-adam-constant",
            "digits digits-small-val textures",
            norm="none",
            schedule="constant",
            epochs=12,
            batch=16,
            **_ADAM,
        ),
        _recipe("resnet-sgd-onecycle", "shapes digits patches", network="resnet", schedule="onecycle", epochs=10),
        _recipe("vit-adamw-cosine", "digits", network="vit", epochs=16, **_ADAMW | {"rate": 2e-3}),
        _recipe(
            "mlp-adamw-constant", "digits", network="mlp", schedule="constant", epochs=15, **_ADAMW | {"rate": 2e-3}
        ),
        _recipe("probe-adamw", "digits", pretrained=True, frozen=True, epochs=6, norm="group", **_ADAMW),
        _recipe("finetune-sgd", "shapes digits patches", pretrained=True, rate=0.05, body_rate=0.005, epochs=5),
        _recipe("gn-sgd-restarts", "digits shapes", norm="group", rate=0.05, schedule="restarts", epochs=12),
        _recipe(
            "small-batches", "digits digits-small-val", norm="group", rate=0.005, schedule="constant", batch=8, epochs=8
        ),
        _recipe("dropout-half", "shapes digits", dropout=0.5, epochs=10),
        _recipe("smoothing-adamw", "shapes-ambiguous shapes-imbalanced", smoothing=0.1, augment=shifts, **_ADAMW),
        _recipe("ema-sgd", "shapes digits", ema=True),
        _recipe("bf16-adamw", "digits shapes", bf16=True, **_ADAMW),
        _recipe("accumulate-sgd", "digits", schedule="constant", rate=0.05, batch=16, accumulate=4, epochs=12),
        _recipe("clip-adamw", "shapes-imbalanced shapes-ambiguous digits", clip=1.0, schedule="onecycle", **_ADAMW),
        _recipe("long-overfit", "digits shapes-ambiguous", epochs=25, batch=64, **_ADAMW),
        _recipe("unet-adamw", "scenes", network="unet", batch=16, epochs=12, augment=mirrors, **_ADAMW),
        _recipe("unet-gn-sgd", "scenes", network="unet", norm="group", batch=8, rate=0.05, epochs=10),
        _recipe("count-adamw", "counting", norm="group", epochs=10, batch=16, **_ADAMW),
        _recipe("count-bn-adam", "counting", epochs=10, schedule="cosine", augment=shifts, batch=16, **_ADAM),
    )
}


def plan_of(recipe: str, world: str, seed: int) -> Plan:
    """A recipe on the images that a world has for a seed."""
    known = WORLDS[world]
    return Plan(world=known, data=known.make(seed), **RECIPES[recipe].settings)
