"""How well weights join class maps, told from some pixels of each image: what is kept does not grow with the images.

Pixels are drawn class by class of the truth, as many of each, and count as many as they stand for, so that a rare class
is judged by enough of them and mean IoU is what it would be over all pixels, but for chance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from snellen.core.record import Record
from snellen.core.seeds import keyed_seed
from snellen.metrics.class_maps import VOID, of_pixels, pixel_counts
from snellen.metrics.confusion import confusion_matrix

if TYPE_CHECKING:
    from torch import Tensor

    from snellen.core.sample import Frame
    from snellen.ensemble.together import Ensemble, Heard

_NUMBERS = 2**25  # probabilities that are kept, of all models, images and classes together: 128 MiB
_FEWEST, _MOST = 16, 2048  # pixels of an image


@dataclass(frozen=True, slots=True)
class PixelPanel:
    """What models say of some pixels.

    said    float32 [models, p, C], probabilities
    truth   int64 [p]
    counts  float64 [p], how many pixels of its image and class each stands for
    image   int64 [p], which image each is of
    """

    said: NDArray[np.float32]
    truth: NDArray[np.int64]
    counts: NDArray[np.float64]
    image: NDArray[np.int64]

    @classmethod
    def of(
        cls, members: Ensemble, records: Sequence[Record], truth: Sequence[Any], heard: Iterator[Heard]
    ) -> PixelPanel:
        """``heard``: what the members say of ``records``, in order; ``truth`` their class maps."""
        per_image = _NUMBERS // max(1, len(records) * len(members.members) * len(members.task.classes))
        per_image = min(max(per_image, _FEWEST), _MOST)
        said, drawn, start = [], [], 0
        for batch in heard:
            count = len(batch.frames[0])
            for i, record in enumerate(records[start : start + count]):
                pixels = draw_pixels(truth[start + i].array, per_image, keyed_seed(0, "pixels", record.id))
                said.append(
                    np.stack(
                        [
                            probabilities_at(each[i], batch.frames[k][i], pixels.places)
                            for k, each in enumerate(batch.outputs)
                        ]
                    )
                )
                drawn.append((pixels, np.full(len(pixels.labels), start + i)))
            start += count
        return cls(
            np.concatenate(said, axis=1),
            np.concatenate([pixels.labels for pixels, _ in drawn]),
            np.concatenate([pixels.counts for pixels, _ in drawn]),
            np.concatenate([image for _, image in drawn]),
        )

    def headline(self, name: str, weights: Sequence[float], images: NDArray[np.bool_], rule: Sequence[float]) -> float:
        """The metric ``name`` of the weighted mean over some of the images [n]; ``rule`` is ``Task.decision``."""
        chosen = images[self.image]
        mean = np.tensordot(np.asarray(weights, np.float32), self.said[:, chosen], 1)
        decided = (mean * np.asarray(rule or [1.0], np.float32)).argmax(axis=1)
        table = confusion_matrix(self.truth[chosen], decided, self.said.shape[2], self.counts[chosen])
        return float(of_pixels(pixel_counts(table[None]))[name][0])


@dataclass(frozen=True, slots=True)
class Pixels:
    """places (x, y) [p, 2], labels int64 [p], counts float64 [p]"""

    places: NDArray[np.intp]
    labels: NDArray[np.int64]
    counts: NDArray[np.float64]


def draw_pixels(truth: NDArray[np.uint8], most: int, seed: int) -> Pixels:
    """At most ``most`` pixels of a map [H, W], none of them void, as many of each class as there are."""
    rng = np.random.default_rng(seed)
    flat = truth.ravel()
    present = np.flatnonzero(np.bincount(flat, minlength=VOID + 1)[:VOID])
    chosen, counts = [np.zeros(0, np.intp)], [np.zeros(0)]
    for label in present:
        there = np.flatnonzero(flat == label)
        some = rng.choice(there, min(len(there), max(1, most // len(present))), replace=False)
        chosen.append(some)
        counts.append(np.full(len(some), len(there) / len(some)))
    where = np.concatenate(chosen)
    places = np.stack([where % truth.shape[1], where // truth.shape[1]], axis=1)
    return Pixels(places, flat[where].astype(np.int64), np.concatenate(counts))


def probabilities_at(logits: Tensor, frame: Frame, places: NDArray[np.intp]) -> NDArray[np.float32]:
    """Logits [C, h, w] of an input, and pixels (x, y) [p, 2] of the image on disk -> [p, C], as the task decodes them:
    interpolated between the pixels of the input, and the nearest beyond its edge."""
    import torch.nn.functional as F

    from snellen.nn.segmentation.answers import to_grid

    centres = np.concatenate([places + 0.5, np.ones((len(places), 1))], axis=1) @ to_grid(frame).T
    grid = logits.new_tensor((centres[:, :2] / centres[:, 2:]).tolist()).float()[None, None]
    found = F.grid_sample(logits[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return np.asarray(found[0, :, 0].softmax(0).T.cpu().numpy(), np.float32)
