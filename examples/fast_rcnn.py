"""Fast R-CNN: the network sees the image once, and regions are read from its map.

    map       one pass over the whole image: a vector for every 8 pixels
    RoIAlign  each region is read from the map at 5 x 5 places by bilinear interpolation
    heads     softmax over the classes and background; four numbers that move the box of each class
    loss      -log p(u) + [u is an object] smooth L1 (t_u - t*), learnt together, and the backbone with them

To be seen: the average precision at IoUs of one half and of 0.75, and how much longer R-CNN (examples/rcnn.py) looks at
the same regions of an image, as it shows every one of them to the network.

Source: R. Girshick, Fast R-CNN, 2015 (arXiv:1504.08083); RoIAlign: K. He et al., Mask R-CNN, 2017 (arXiv:1703.06870).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_align

from snellen.draw.chart import SERIES
from snellen.draw.panels import panels, show
from snellen.lab import demonstrations, load
from snellen.metrics.overlap import box_iou
from snellen.nn.backbone import create_backbone
from snellen.nn.catalog import EMBEDDED_MODEL
from snellen.nn.feature_maps import create_map_backbone, load_pretrained_maps
from snellen.nn.network import Normalize

LEVEL, STRIDE, CELLS = 2, 8, 5  # which map, its pixels a step, and the places of a region each way
REGIONS, OBJECTS = 64, 16  # of an image in a step, and how many of them are objects at most
SCALE = 10.0  # of the numbers that move a box, so that they count as much as the classes
rcnn: Any = load(demonstrations()["rcnn"])
regions = rcnn.regions


class FastRCNN(nn.Module):
    """image uint8 [h, w, 3] and boxes [r, 4] -> log-odds [r, C + 1], background last, and changes [r, C, 4]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.normalize = Normalize(rcnn.MEAN, rcnn.STD)
        self.backbone = create_map_backbone(EMBEDDED_MODEL, input_size=(regions.SIDE, regions.SIDE))
        load_pretrained_maps(self.backbone, EMBEDDED_MODEL, file=None, pretrained=True)
        self.read = nn.Sequential(nn.Flatten(), nn.Linear(self.backbone.channels[LEVEL] * CELLS**2, 256), nn.ReLU())
        self.classes, self.changes = nn.Linear(256, num_classes + 1), nn.Linear(256, 4 * num_classes)

    def forward(self, image: np.ndarray, boxes: np.ndarray) -> tuple[Tensor, Tensor]:
        seen = self.backbone(self.normalize(torch.tensor(image).permute(2, 0, 1)[None]))[LEVEL]
        said = self.read(roi_align(seen, [torch.from_numpy(boxes).float()], CELLS, 1 / STRIDE, 2, aligned=True))
        return self.classes(said), torch.unflatten(self.changes(said), 1, (-1, 4))


def loss(net: FastRCNN, scene: Any, boxes: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Of a sample of the regions of a scene; a quarter of them objects, where there are as many."""
    overlap = box_iou(boxes, scene.boxes)
    best, owner = overlap.max(axis=1), overlap.argmax(axis=1)
    objects = rng.permutation(np.flatnonzero(best >= 0.5))[:OBJECTS]
    nothing = rng.permutation(np.flatnonzero(best < 0.5))[: REGIONS - len(objects)]
    chosen = np.concatenate([objects, nothing])
    true = torch.from_numpy(scene.labels[owner[objects]])
    logits, changes = net(scene.image, boxes[chosen])
    wanted = torch.from_numpy(rcnn.deltas(boxes[objects], scene.boxes[owner[objects]])).float()
    moves = F.smooth_l1_loss(changes[range(len(objects)), true], SCALE * wanted, reduction="sum") / len(chosen)
    return F.cross_entropy(logits, F.pad(true, (0, len(nothing)), value=len(regions.SHAPES))) + moves


def learn(net: FastRCNN, scenes: Sequence[Any], places: Sequence[np.ndarray], steps: int, seed: int) -> list[float]:
    """The loss of each step of two scenes."""
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    net.eval()  # the batch norms keep what they have learnt from many images
    told = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 * min((step + 1) / 20, 2 * (1 - step / steps), 1)
        total = torch.stack([loss(net, scenes[i], places[i], rng) for i in rng.integers(0, len(scenes), 2)]).mean()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        told.append(float(total.detach()))
    return told


@torch.no_grad()
def find(net: FastRCNN, image: np.ndarray, boxes: np.ndarray) -> Any:
    """What is found: each region is told its likeliest class, and its box moved as for that."""
    logits, changes = net(image, boxes)
    chances = logits.softmax(1)[:, :-1]
    own = changes[torch.arange(len(boxes)), chances.argmax(1)] / SCALE
    return rcnn.kept(rcnn.moved(boxes, own.double().numpy()), chances.double().numpy())


def run(out: Path, *, seed: int = 0, train: int = 60, test: int = 40, steps: int = 200) -> dict[str, float]:
    """Draw ``out/fast_rcnn.png`` and return the average precisions on new scenes."""
    torch.set_num_threads(1)  # images are too small to be shared
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    scenes = [regions.make_scene(rng) for _ in range(train + test)]
    places = [regions.propose(scene.image) for scene in scenes]
    net, new = FastRCNN(len(regions.SHAPES)), scenes[train:]
    told = learn(net, scenes[:train], places[:train], steps, seed)
    start = time.perf_counter()
    found = [find(net, scene.image, boxes) for scene, boxes in zip(new, places[train:], strict=True)]
    ours = (time.perf_counter() - start) / test
    numbers = {f"AP{100 * iou:.0f}": rcnn.average_precision(found, new, iou) for iou in (0.5, 0.75)}
    print(", ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
    slow, start = create_backbone(EMBEDDED_MODEL, input_size=rcnn.CROP).eval(), time.perf_counter()
    rcnn.features(slow, new[0].image, places[train])
    print(f"{1000 * ours:.0f} ms an image; R-CNN: {(time.perf_counter() - start) / ours:.0f} times as long")
    with panels(out / "fast_rcnn.png", "One look at the image serves all regions", columns=2, height=420) as grid:
        shown = max(range(test), key=lambda i: len(new[i].labels))
        show(grid[0], rcnn.picture(new[shown].image, found[shown]), title="a new scene")
        grid[1].plot(told, color=SERIES[0])
        grid[1].set(xlabel="step", ylabel="loss of two scenes", ylim=(0, None))
    return numbers


if __name__ == "__main__":
    run(Path("runs/lab"))
