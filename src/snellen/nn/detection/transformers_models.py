"""RT-DETR and D-FINE with the layers and losses of transformers (Apache-2.0; the extra 'hf'), on any backbone.

Each of a number of queries finds one object or none, so that nothing is found twice and no suppression is needed.
What is published is made for GPUs: widths and depths here are those of D-FINE-N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    DFineConfig,
    DFineForObjectDetection,
    RTDetrConfig,
    RTDetrForObjectDetection,
    RTDetrResNetConfig,
)
from transformers.modeling_outputs import BaseModelOutput

from snellen.core.geometry import Size
from snellen.nn.detection.adapter import AdaptedDetector, OnBackbone, fp32, learnt
from snellen.nn.detection.neck import FeaturePyramid
from snellen.nn.detection.truth import Truth
from snellen.nn.feature_maps import MapBackbone

QUERIES = 300  # objects that can be found in an image, as published; fewer where the maps have fewer cells
WIDTH = 128
HIDDEN = 512  # of the feed-forward layers
LAYERS = 3  # of the decoder
HEADS = 8
DENOISING = 100  # queries of a training step that begin at noisy truths (Zhang et al. 2022, arXiv:2203.03605)
PRIOR = 0.01  # the score of every query at the start (Lin et al. 2017)


class Answers(NamedTuple):
    """logits [n, queries, C]; pred_boxes [n, queries, 4]: centres and sides in shares of the image."""

    logits: Tensor
    pred_boxes: Tensor


class SetHead(nn.Module):
    """The detector behind its backbone: the maps' projections, the encoder, and the decoder with its queries.

    entry  makes of the backbone's maps those that ``detr`` takes; by default they are the same
    """

    def __init__(self, detr: Any, entry: nn.Module | None = None) -> None:
        super().__init__()
        self.entry: Any = entry or nn.Identity()
        self.detr = detr
        del self.detr.model.backbone

    def forward(self, maps: Sequence[Tensor], labels: list[dict[str, Tensor]] | None = None) -> Any:
        levels = self.entry([each.float() for each in maps])
        inner = self.detr.model
        seen = inner.encoder([project(x) for project, x in zip(inner.encoder_input_proj, levels, strict=True)])
        if labels is None:
            return self._answers(seen.last_hidden_state)
        told = BaseModelOutput(last_hidden_state=seen.last_hidden_state)
        # Embeddings are only asked for the size of the batch where the encoder's outputs are given.
        return self.detr(None, inputs_embeds=levels[-1], encoder_outputs=told, labels=labels)

    def _answers(self, seen: Sequence[Tensor]) -> Answers:
        """The encoder's maps -> what ``detr`` says of them where nothing is learnt.

        Its own forward (transformers 5.23) counts the images by ``len``, so that a graph could take no other number.
        """
        inner = self.detr.model
        last = len(seen) - 1  # coarser maps are each made of it
        levels = [project(seen[min(i, last)]) for i, project in enumerate(inner.decoder_input_proj)]
        shapes = tuple((level.shape[2], level.shape[3]) for level in levels)
        flat = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], 1)
        anchors, valid = inner.generate_anchors(shapes, device=flat.device, dtype=flat.dtype)
        memory = inner.enc_output(valid.to(flat.dtype) * flat)
        first = inner.enc_score_head(memory).amax(-1).topk(inner.config.num_queries, dim=1).indices[..., None]
        begun = inner.enc_bbox_head(memory) + anchors
        said = inner.decoder(
            inputs_embeds=memory.gather(1, first.expand(-1, -1, memory.shape[2])),
            encoder_hidden_states=flat,
            reference_points=begun.gather(1, first.expand(-1, -1, 4)),
            spatial_shapes=np.array(shapes, object),  # its sum is checked; of a tensor no graph could do that
            spatial_shapes_list=list(shapes),
        )
        return Answers(said.intermediate_logits[:, -1], said.intermediate_reference_points[:, -1])


def _narrow_head(backbone: MapBackbone, input_size: tuple[int, int], config: type, model: type, **more: Any) -> SetHead:
    entry = FeaturePyramid(backbone.channels, backbone.reductions, 1).entry
    strides, channels = entry.strides, entry.channels
    cells = sum(-(-input_size[0] // stride) * -(-input_size[1] // stride) for stride in strides)
    settings = {
        "backbone_config": _stand_in(channels),
        "feat_strides": list(strides),
        "encoder_in_channels": list(channels),
        "encode_proj_layers": [len(strides) - 1],
        "decoder_in_channels": [WIDTH] * len(strides),
        "num_feature_levels": len(strides),
        "num_queries": min(QUERIES, cells),
        "num_denoising": DENOISING,
        "initializer_bias_prior_prob": PRIOR,
        "encoder_hidden_dim": WIDTH,
        "d_model": WIDTH,
        "encoder_ffn_dim": HIDDEN,
        "decoder_ffn_dim": HIDDEN,
        "decoder_layers": LAYERS,
        "encoder_attention_heads": HEADS,
        "decoder_attention_heads": HEADS,
    }
    return SetHead(with_plain_gains(model(config(**settings, **more))), entry)


def with_plain_gains(detr: Any) -> Any:
    """transformers draws the gains of batch norms round 0, to be filled with learnt ones."""
    for module in detr.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    return detr


def _stand_in(channels: Sequence[int]) -> RTDetrResNetConfig:
    """A backbone that is built only to tell transformers the channels of ours, and is then thrown away."""
    told = RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=list(channels), depths=[1] * len(channels), layer_type="basic"
    )
    told.out_features = [f"stage{i + 1}" for i in range(len(channels))]
    return told


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """The backbone's maps, and the (width, height) of the images in pixels."""

    maps: Sequence[Tensor]
    size: tuple[int, int]


class SetDetector(AdaptedDetector):
    """What all have in common. Crowds are left out of the truth, but what is found in them counts as background."""

    NAMES: ClassVar[Mapping[str, str]] = {"vfl": "class", "bbox": "box", "giou": "giou"}
    needs_nms: ClassVar[bool] = False

    def raw(self, images: Tensor) -> Seen:
        return Seen(self.maps(images), (images.shape[-1], images.shape[-2]))

    def terms(self, raw: Seen, truths: Sequence[Truth]) -> dict[str, Tensor]:
        with fp32(raw.maps[0]):
            return self._summed(self.head(raw.maps, self._targets(raw, truths)).loss_dict)

    def candidates(self, raw: Seen) -> Tensor:
        with fp32(raw.maps[0]):
            return self._found(self.head(raw.maps), raw.size)

    def both(self, raw: Seen, truths: Sequence[Truth]) -> tuple[dict[str, Tensor], Tensor]:
        with fp32(raw.maps[0]):
            said = self.head(raw.maps, self._targets(raw, truths))
            return self._summed(said.loss_dict), self._found(said, raw.size)

    def weighted(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return dict(terms)  # transformers has weighed them, by what it was told

    def _targets(self, raw: Seen, truths: Sequence[Truth]) -> list[dict[str, Tensor]]:
        """Boxes as their centres and sides, in shares of the image; classes begin at 0 here as well."""
        told = []
        for truth in truths:
            boxes, labels = learnt(truth)
            low, high = torch.split(boxes / boxes.new_tensor(raw.size * 2), 2, 1)
            told.append({"boxes": torch.cat([(low + high) / 2, high - low], 1), "class_labels": labels})
        return told

    def _summed(self, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Over the layers of the decoder and its noisy queries: 'loss_bbox', 'loss_bbox_aux_0', 'loss_bbox_dn_1'."""
        terms = dict.fromkeys(self.NAMES.values(), torch.zeros(()))
        for name, loss in losses.items():
            if name.startswith("loss_"):  # RF-DETR also tells by how many objects it was off
                term = self.NAMES[name.split("_")[1]]
                terms[term] = terms[term].to(loss.device) + loss
        return terms

    def _found(self, said: Any, size: tuple[int, int]) -> Tensor:
        middle, sides = torch.split(self.answering(said.pred_boxes), 2, 2)
        boxes = torch.cat([middle - sides / 2, middle + sides / 2], 2) * middle.new_tensor(size * 2)
        return torch.cat([boxes, self.answering(said.logits).sigmoid()], 2).float()

    def answering(self, queries: Tensor) -> Tensor:
        """Those of [n, m, ...] that answer. In training mode those that begin at noise come before them."""
        return queries[:, -self.head.detr.config.num_queries :]


class RTDetector(OnBackbone, SetDetector):
    """RT-DETR, Zhao et al. 2023 (arXiv:2304.08069)."""

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {"class": 1.0, "box": 5.0, "giou": 2.0}
    OF_TRANSFORMERS: ClassVar[tuple[type, type]] = (RTDetrConfig, RTDetrForObjectDetection)

    @classmethod
    def build(
        cls, backbone: MapBackbone, input_size: Size, num_classes: int, weights: Mapping[str, float]
    ) -> tuple[nn.Module, int]:
        config, model = cls.OF_TRANSFORMERS
        told = weights_by_their_names(cls.NAMES, weights)
        head = _narrow_head(backbone, input_size, config, model, num_labels=num_classes, **told)
        return head, max(head.entry.strides)


class DFineDetector(RTDetector):
    """D-FINE, Peng et al. 2024 (arXiv:2410.13842): sides are distributions that each layer of the decoder narrows."""

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = {
        **RTDetector.LOSS_WEIGHTS,
        "distribution": 0.15,
        "distillation": 1.5,
    }
    NAMES: ClassVar[Mapping[str, str]] = {**SetDetector.NAMES, "fgl": "distribution", "ddf": "distillation"}
    OF_TRANSFORMERS: ClassVar[tuple[type, type]] = (DFineConfig, DFineForObjectDetection)


def weights_by_their_names(names: Mapping[str, str], weights: Mapping[str, float]) -> dict[str, float]:
    """The weights of the terms, by the names of transformers' settings."""
    return {f"weight_loss_{theirs}": weights[ours] for theirs, ours in names.items()}
