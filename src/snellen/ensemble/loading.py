"""What answers for a run: its model, or several models together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from snellen.core.checkpoint import Checkpoint
from snellen.core.errors import RunError
from snellen.core.files import sha256_of_file
from snellen.core.run import RunFolder
from snellen.ensemble.alignment import aligned
from snellen.ensemble.recipe import Recipe
from snellen.ensemble.together import Ensemble, ensemble
from snellen.tasks.loading import LoadedModel, load_model

REFERENCE = "ranks.safetensors"  # what a mean of ranks ranks by


def load_run(run: RunFolder, *, device: str = "auto") -> LoadedModel | Ensemble:
    """The model of a run; of a cross-validation and of an ensemble their models together.

    Raises RunError when there is none, or a file is missing or is not the one that was put there.
    """
    paths = run.models()
    models = [load_model(Checkpoint.load(path), device=device) for path in paths]
    if not run.is_ensemble or paths == [run.best_checkpoint]:
        return models[0] if len(models) == 1 else ensemble(models)
    recipe = Recipe.read(run)
    for path, member in zip(paths, recipe.counting, strict=True):
        if sha256_of_file(path) != member.sha256:
            raise RunError(f"{path} is not the model of {member.name} that this ensemble was made of: make it again")
    models = list(aligned(models, run.plan))  # the first member may count nothing, and is not here then
    return Ensemble(models, recipe.way, [each.weight for each in recipe.counting], _reference(run.path / REFERENCE))


def _reference(path: Path) -> np.ndarray | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        return None
    try:
        return load_file(path)["scores"]
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise RunError(f"{path} is damaged: {error}; make the ensemble again") from None
