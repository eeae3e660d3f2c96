"""What counts as one look at a model."""

from __future__ import annotations

import numpy as np
import torch

from doctor_cases import tiny_training
from snellen.doctor.scores import gain, score_images


def test_images_whose_loss_is_known_by_batches_alone_count_once_a_batch() -> None:
    """A hundred images in five batches are five values: the p-value of a hundred would be made up."""
    training = tiny_training("mlp", num=100, epochs=1)
    inputs, targets = (torch.cat(part) for part in zip(*training.train, strict=True))
    batches = [(inputs[i : i + 20], targets[i : i + 20]) for i in range(0, 100, 20)]
    assert len(score_images(training, batches).values) == 100
    training.question = "other"
    before = score_images(training, batches)
    training.model.eval()
    with torch.no_grad():
        expected = [-float(training.loss_of(batch)) for batch in batches]
    assert np.allclose(before.values, expected, rtol=1e-4)
    assert len(score_images(training, batches, most=40).values) == 2
    with torch.no_grad():
        for weights in training.model.parameters():
            weights.mul_(0.5)
    changed = gain(before, score_images(training, batches))
    assert changed.mean != 0 and changed.p == 1.0
