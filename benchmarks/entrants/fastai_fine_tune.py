"""fastai's ``vision_learner(...).fine_tune(epochs)``; ``--scratch``: ``Learner(...).fit_one_cycle(epochs)``.

Three things make fastai look worse than it is, and are avoided here: a learner without ``stats`` adds no normalisation,
in silence; the training loader drops the last, incomplete batch (of 64 by default: a fifth of 245 photographs; batches
of 32 lose less); and a backbone that is made with ``pretrained=False`` is not frozen for its first epoch.
"""

from __future__ import annotations

from argparse import Namespace

import torch
from common import arguments, tell
from fastai.vision.all import (
    Callback,
    ImageDataLoaders,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)
from torch_loop import small_network


class Teller(Callback):
    order = 51  # after the recorder, which has order 50

    def after_epoch(self) -> None:
        tell(float(self.recorder.values[-1][-1]))


def main() -> None:
    asked = arguments("fastai")
    set_seed(asked.seed, reproducible=True)
    learner = _from_scratch(asked) if asked.scratch else _pretrained(asked)
    with learner.no_bar(), learner.no_logging():
        if asked.scratch:
            learner.fit_one_cycle(asked.epochs, 5e-3)
        else:
            learner.fine_tune(asked.epochs)


def _pretrained(asked: Namespace) -> Learner:
    """One frozen epoch, then ``epochs`` of the whole network: fine_tune freezes by itself."""
    data = ImageDataLoaders.from_folder(
        asked.data,
        valid="val",
        item_tfms=Resize(asked.size),
        batch_tfms=Normalize.from_stats([0.5] * 3, [0.5] * 3),  # aug_transforms cost accuracy in so few epochs
        bs=32,
        num_workers=2,
    )
    learner = vision_learner(
        data, "tf_efficientnet_lite0", pretrained=False, normalize=False, metrics=accuracy, cbs=Teller()
    )
    weights = torch.load(asked.weights, weights_only=True)
    missing, _ = learner.model[0].model.load_state_dict(weights, strict=False)
    assert not missing, f"the weights do not fit: {missing[:3]}"
    return learner


def _from_scratch(asked: Namespace) -> Learner:
    data = ImageDataLoaders.from_folder(
        asked.data,
        valid="val",
        batch_tfms=[*aug_transforms(size=32, max_rotate=0, max_zoom=1.1, max_warp=0), Normalize()],
        bs=64,
        num_workers=0,
    )
    return Learner(data, small_network(data.c), metrics=accuracy, cbs=Teller())


if __name__ == "__main__":
    main()
