"""The members of an ensemble are asked once for every task, whatever their networks give."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from export_cases import ALL_TASKS, a_model, images_in, records_of
from snellen.core.console import Console
from snellen.data.image import decode
from snellen.ensemble import ensemble
from snellen.ensemble.panel import Panel, Side
from snellen.predict.answering import NetworkAnswering


@pytest.mark.parametrize("task", ALL_TASKS)
def test_members_are_heard_alone_and_together(task: str, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    models = [a_model(task, seed=seed) for seed in (0, 1)]
    records = records_of(task, images_in(tmp_path, 3))
    truth = [models[0].task.target(record) for record in records]
    joined = ensemble(models)
    panel = Panel(joined, Side("val", records, truth, None), Console(io.StringIO()))
    for model, said in zip(models, panel.alone, strict=True):
        answering, images = NetworkAnswering(model), [decode(record.path) for record in records]
        own = answering.decide([answering.prepare(image, (image.shape[1], image.shape[0])) for image in images])
        assert [model.task.difference(one, other).different for one, other in zip(own, said, strict=True)] == [0] * 3
    if joined.joins_predictions:  # then no network is asked again, however often weights are tried
        joined.hearings = None  # type: ignore[method-assign, assignment]
    together = panel.said_by(joined)
    [last] = panel.said_by(joined, np.array([False, False, True]))
    assert joined.task.difference(last, together[2]).different == 0
    again = joined.decide([joined.prepare(decode(r.path), decode(r.path).shape[1::-1]) for r in records])
    assert [joined.task.difference(one, other).different for one, other in zip(together, again, strict=True)] == [0] * 3
