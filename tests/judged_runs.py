"""Run folders with answers made up for the purpose: as much of a run as a comparison reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from snellen.core.config import Config
from snellen.core.run import RunFolder

CLASSES = ("cat", "dog")


def save_run(
    folder: Path,
    answers: dict[str, np.ndarray],
    *,
    ids: Sequence[str],
    side: str = "test",
    task: str = "classification",
    classes: Sequence[str] = CLASSES,
    **more: Any,
) -> RunFolder:
    """A finished run that was judged on ``ids`` with ``answers``, the arrays of its task.

    more  hashes: sha256 by id, by default the id itself; groups and labels by id; learnt: hashes of training images;
          settings: of its config
    """
    (folder / "predictions").mkdir(parents=True)
    (folder / "STATUS").write_text("done\n")
    (folder / "config.toml").write_text(Config.of(data="photos", **more.get("settings", {})).to_toml())
    save_file(answers, folder / "predictions" / f"{side}.safetensors")
    (folder / "predictions" / f"{side}.json").write_text(json.dumps(list(ids)))
    hashes, groups, labels = (more.get(name, {}) for name in ("hashes", "groups", "labels"))
    rows = [
        {"id": i, "labels": [labels.get(i, "cat")], "split": side, "group": groups.get(i), "sha256": hashes.get(i, i)}
        for i in ids
    ]
    rows += [{"id": f"train {h}", "labels": ["cat"], "split": "train", "sha256": h} for h in more.get("learnt", ())]
    manifest = {"rows": rows, "classes": list(classes), "multi_label": task == "multilabel", "seed": 0}
    manifest |= {"fractions": [0.7, 0.15, 0.15], "origin": "snellen", "reasons": []}
    (folder / "data.json").write_text(json.dumps({"version": 1, "name": "photos", "task": task, "manifest": manifest}))
    return RunFolder(folder)


def right_or_wrong(right: np.ndarray) -> dict[str, np.ndarray]:
    """Answers of a classifier: bool [n], whether each image is named rightly."""
    n = len(right)
    truth = np.arange(n) % 2
    predicted = np.where(right, truth, 1 - truth)
    scores = np.full((n, 2), 0.2, np.float32)
    scores[np.arange(n), predicted] = 0.8
    return {"scores": scores, "predicted": predicted, "truth": truth}


def names(n: int) -> list[str]:
    return [f"{i:04}.png" for i in range(n)]
