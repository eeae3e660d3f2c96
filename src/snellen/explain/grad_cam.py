"""Which places of the last feature map the answer hangs on: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snellen.core.errors import DataError
from snellen.core.geometry import Size
from snellen.data.store import frame_of, prepare
from snellen.explain.asked import Asked, asked_of
from snellen.explain.deletion import Deletion, deletion_of
from snellen.explain.explanation import Explanation
from snellen.explain.layers import Layer, as_batch, no_maps, recorded, the_backbone
from snellen.explain.outputs import score_of
from snellen.explain.pictures import drawing
from snellen.explain.scene import Heat, Pixels, Scene, placed, scaled
from snellen.explain.trials import Trials
from snellen.predict.answering import Answering, NetworkAnswering
from snellen.tasks.loading import LoadedModel

_NOTHING = 1e-30  # of a map; its scale is that of the activations, which says nothing by itself


def grad_cam_of(
    model: LoadedModel | Sequence[LoadedModel],
    pixels: Pixels,
    *,
    size: Size | None = None,
    of: str | None = None,
    check: bool = True,
    path: str = "",
    answering: Answering | None = None,
) -> list[Explanation]:
    """A map for what the model says of one image, or of ``of``; several where it says several things.

    model      of the members of an ensemble, the mean of their maps
    pixels     uint8 [H, W, 3], upright
    size       (width, height) of the image on disk, where it was decoded at a reduced scale
    check      whether the map is checked by removing what is hot (30 answers)
    answering  the model as it answers: needed for an ensemble; of one model, preparing it anew costs more than a small
               image

    Raises ConfigError for an unknown class and for a network without maps, DataError where the model finds none of the
    class here.
    """
    members = [model] if isinstance(model, LoadedModel) else list(model)
    if answering is None:
        [only] = members
        answering = NetworkAnswering(only)
    size = size or (pixels.shape[1], pixels.shape[0])
    scene = Scene.of(pixels, size, answering.preprocessing)
    [answer] = answering.decide([answering.prepare(pixels, size)])
    asked = asked_of(answering.task, answer, of)
    maps = [_heats(member, pixels, size, asked, scene) for member in members]
    trials = Trials(answering, pixels, size) if check else None
    made = []
    for each, heats in zip(asked, zip(*maps, strict=True), strict=True):
        heat = np.asarray(np.mean(heats, axis=0), np.float32)
        explanation = Explanation(
            path=path,
            how="grad-cam",
            of=each.name,
            score=each.score(answer),
            heat=heat,
            scale=each.scale,
            size=size,
            seen=scene.seen,
            deletion=None if trials is None else _checked(trials, heat, each.name),
        )
        made.append(drawing(explanation, scene, answering.task, answer))
    return made


def _checked(trials: Trials, heat: Heat, name: str) -> Deletion | None:
    """None where the trials, which tell places coarsely, do not find what was found in the image."""
    try:
        [asked] = trials.asked(name)
    except DataError:
        return None
    return deletion_of(trials, heat, asked)


def _heats(model: LoadedModel, pixels: Pixels, size: Size, asked: Sequence[Asked], scene: Scene) -> list[Heat]:
    """Each 0..1: one forward pass, and a way back for each that is asked."""
    own = replace(scene, frame=frame_of(size, model.plan.preprocessing))
    images = as_batch([prepare(pixels, model.plan.preprocessing, size)], model)
    backbone = the_backbone(model, "Grad-CAM")
    with torch.inference_mode(False), torch.enable_grad(), recorded(backbone) as layers:
        outputs = model.network.eval()(images.clone().requires_grad_())
        if not layers:
            raise no_maps("Grad-CAM")
        heats = []
        for each in asked:
            cells = class_activation(score_of(model.task, outputs, each), layers, either_way=each.either_way)
            heat, _ = scaled(placed(cells.detach().cpu().numpy(), layers[-1].covers, own), _NOTHING)
            heats.append(heat)
    return heats


def class_activation(score: Tensor, layers: Sequence[Layer], *, either_way: bool = False) -> Tensor:
    """float32 [h, w], 0 or more: what each place adds to the score, or ``either_way`` how much it moves it.

    Of a backbone whose features are pooled, Grad-CAM on the last map whose places the score depends on. That is seldom
    another than the last: of a vision transformer that reads its class token, the patches' tokens count no more after
    the last block. Of a backbone that gives several maps to a head for places, the sum over all of them, see
    ``_contributions``.
    """
    slopes = torch.autograd.grad(score, [layer.raw for layer in layers], retain_graph=True, allow_unused=True)
    maps = [(layer.map(), layer.map(slope)) for layer, slope in zip(layers, slopes, strict=True) if slope is not None]
    reached = [(own.detach()[0].float(), slope[0].float()) for own, slope in maps if bool(slope.any())]
    if not reached:
        return torch.zeros(layers[-1].map().shape[2:])
    own, slope = reached[-1]
    added = _contributions(reached) if layers[-1].own else (slope.mean((1, 2), keepdim=True) * own).sum(0)
    return added.abs() if either_way else added.clamp_min(0)


def _contributions(maps: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Activation times slope, each place for itself (HiResCAM, Draelos and Carin 2020, arXiv:2011.08891), summed over
    ``maps`` on the grid of the last but one.

    Grad-CAM's mean slope of a channel mixes all places: of a score that depends on a few of them it finds nothing, and
    the coarsest map alone knows nothing of small objects.
    """
    rows, columns = maps[max(0, len(maps) - 2)][0].shape[1:]
    total = maps[-1][0].new_zeros(rows, columns)
    for own, slope in maps:
        each = (own * slope).sum(0)[None, None]
        finer = each.numel() >= total.numel()
        told = F.interpolate(each, (rows, columns), mode="area" if finer else "bilinear")[0, 0]
        total = total + told * (each.numel() / total.numel())
    return total
