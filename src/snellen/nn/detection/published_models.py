"""RT-DETR, D-FINE and RF-DETR as they are published for transformers (the extra 'hf'): own backbones, whole weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn

from snellen.core.errors import ConfigError, WeightsError
from snellen.core.plan import Plan
from snellen.core.preprocessing import Preprocessing
from snellen.nn.backbone import UNTRAINED
from snellen.nn.catalog import Provenance
from snellen.nn.detection.adapter import AdaptedDetector
from snellen.nn.detection.transformers_models import (
    PRIOR,
    DFineDetector,
    RTDetector,
    SetDetector,
    SetHead,
    weights_by_their_names,
    with_plain_gains,
)
from snellen.nn.feature_maps import MapBackbone
from snellen.nn.pretrained import fit_weights
from snellen.nn.published import Published, check_input, read_published, step, strides, weights_folder

STEMS = {"rt_detr": "RTDetr", "rt_detr_v2": "RTDetrV2", "d_fine": "DFine", "rf_detr": "RfDetr"}
_BODIES = ("model.backbone.model.", "model.backbone.backbone.")  # where the backbone is in transformers' detectors
_ROWS_ARE_CLASSES = re.compile(r"(class_embed|enc_score_head)\.")
_COUNTERS = "num_batches_tracked"  # of batch norms; nothing computes with them, and some files lack them


class PublishedMaps(MapBackbone):
    """A backbone of transformers that gives its maps."""

    def __init__(self, body: Any, scales: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.channels = tuple(body.channels)
        self.reductions = (tuple(scales) * len(self.channels))[: len(self.channels)]  # of one scale, or each of its own

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.body(images).feature_maps)


class PublishedDetector(SetDetector):
    """RT-DETR of config.json's ``settings``, with other classes.

    Raises ConfigError for settings that transformers makes no network of, and for an input that does not fit.
    """

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = RTDetector.LOSS_WEIGHTS

    def __init__(
        self,
        preprocessing: Preprocessing,
        settings: Mapping[str, Any],
        num_classes: int,
        *,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        check_input(settings, preprocessing.input_size)
        asked = loss_weights or {}
        detr = _detr(settings, num_classes, **self.changes(self.weights_of_terms(asked)))
        backbone = PublishedMaps(self.body_of(detr), strides(settings))
        super().__init__(preprocessing, backbone, self.head_of(detr), multiple=step(settings), loss_weights=asked)
        self.settings = settings

    def maps(self, images: Tensor) -> Sequence[Tensor]:
        check_input(self.settings, (images.shape[-1], images.shape[-2]))
        return super().maps(images)

    def changes(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """What differs from the settings as published: nothing is computed ahead for inputs of one size."""
        any_size = {"anchor_image_size": None, "eval_size": None}
        return {**any_size, "initializer_bias_prior_prob": PRIOR, **weights_by_their_names(self.NAMES, weights)}

    def body_of(self, detr: Any) -> nn.Module:
        body: nn.Module = detr.model.backbone.model
        return body

    def head_of(self, detr: Any) -> nn.Module:
        return SetHead(detr)


class PublishedDFine(PublishedDetector):
    """D-FINE, as ``PublishedDetector``."""

    LOSS_WEIGHTS: ClassVar[Mapping[str, float]] = DFineDetector.LOSS_WEIGHTS
    NAMES: ClassVar[Mapping[str, str]] = DFineDetector.NAMES


class RFDetector(PublishedDetector):
    """RF-DETR, Robinson et al. 2025 (arXiv:2511.09554): a DINOv2 that looks within windows, and a decoder alone.

    In training 13 groups of queries look for the objects (Chen et al. 2022, arXiv:2207.13085); the first one answers.
    """

    NAMES: ClassVar[Mapping[str, str]] = {"ce": "class", "bbox": "box", "giou": "giou"}

    def changes(self, weights: Mapping[str, float]) -> dict[str, Any]:
        return {}

    def body_of(self, detr: Any) -> nn.Module:
        body: nn.Module = detr.model.backbone.backbone
        return body

    def head_of(self, detr: Any) -> nn.Module:
        return ProjectedHead(detr)

    def weighted(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return AdaptedDetector.weighted(self, terms)  # transformers weighs its sum alone

    def answering(self, queries: Tensor) -> Tensor:
        return queries[:, : self.head.detr.config.num_queries]


class ProjectedHead(nn.Module):
    """RF-DETR behind its backbone: one map of all of the backbone's, the first guesses, and the decoder."""

    def __init__(self, detr: Any) -> None:
        super().__init__()
        self.detr = detr
        self.detr.model.backbone = Projection(detr.model.backbone.projector)
        # transformers (5.23) looks for as many groups in evaluation mode, where there is but the first.
        self.one_group = copy.deepcopy(detr.config)
        self.one_group.group_detr = 1

    def forward(self, maps: Sequence[Tensor], labels: list[dict[str, Tensor]] | None = None) -> Any:
        said = self.detr(torch.cat([each.float() for each in maps], 1))
        if labels is None:
            return said
        every_layer = self.detr.predict_class_and_boxes(
            said.intermediate_hidden_states, said.intermediate_reference_points
        )
        _, said.loss_dict, _ = self.detr.loss_function(
            said.logits,
            labels,
            said.logits.device,
            said.pred_boxes,
            self.detr.config if self.training else self.one_group,
            *every_layer,
            said.enc_outputs_class,
            said.enc_outputs_coord_logits,
        )
        return said


class Projection(nn.Module):
    """What is left of RF-DETR's backbone where its maps are handed in, one after the other [n, c, h, w]."""

    def __init__(self, projector: nn.Module) -> None:
        super().__init__()
        self.projector = projector

    def forward(self, maps: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.projector((maps,)), mask.bool()


_DETECTORS: Mapping[str, type[PublishedDetector]] = {
    "rt_detr": PublishedDetector,
    "rt_detr_v2": PublishedDetector,
    "d_fine": PublishedDFine,
    "rf_detr": RFDetector,
}


def create_published(plan: Plan, num_classes: int) -> PublishedDetector:
    """The network of ``plan.published``, its weights still random. Raises ConfigError."""
    settings = dict(plan.published)
    if not plan.pretrained:
        settings["freeze_backbone_batch_norms"] = False  # what has learnt nothing has no statistics to keep
    kind = _DETECTORS[settings["model_type"]]
    return kind(plan.preprocessing, settings, num_classes, loss_weights=dict(plan.loss_weights))


def load_published(model: nn.Module, plan: Plan, classes: Sequence[str]) -> Provenance:
    """Fill all of ``model`` with the published weights, and say where they come from. Raises ConfigError, WeightsError.

    What tells a class from others keeps its weights where the published detector knows one of exactly the same name.
    """
    if not plan.pretrained:
        return UNTRAINED
    known = read_published(plan.model)
    rows = {i: known.classes.index(name) for i, name in enumerate(classes) if name in known.classes}
    parts: dict[str, dict[str, Tensor]] = {"backbone": {}, "head": {}}
    own = model.state_dict()
    for name, tensor in _published_weights(known).items():
        body = next((prefix for prefix in _BODIES if name.startswith(prefix)), None)
        if body is not None:
            parts["backbone"][f"body.{name.removeprefix(body)}"] = tensor
        else:
            fresh = own.get(f"head.detr.{name}") if _ROWS_ARE_CLASSES.search(name) else None
            parts["head"][f"detr.{name}"] = tensor if fresh is None else _chosen(tensor, fresh, rows, len(classes))
    for part, state in parts.items():
        fit_weights(model.get_submodule(part), state, known.source)
    return Provenance(f"{known.source}, which knows {len(rows)} of the {len(classes)} classes", known.license)


def _chosen(published: Tensor, fresh: Tensor, rows: Mapping[int, int], num_classes: int) -> Tensor:
    """``fresh`` with the ``rows`` of the published one; an embedding also has a last row, for no class."""
    chosen = fresh.clone()
    for ours, theirs in rows.items():
        chosen[ours] = published[theirs]
    if len(fresh) > num_classes:
        chosen[-1] = published[-1]
    return chosen


def _of_transformers(kind: str) -> tuple[Any, Any]:
    """The classes of the settings and of the detector."""
    stem = STEMS[kind]
    try:
        return getattr(transformers, f"{stem}Config"), getattr(transformers, f"{stem}ForObjectDetection")
    except AttributeError:
        raise ConfigError(
            f"transformers {transformers.__version__} does not know '{kind}' yet: pip install -U transformers"
        ) from None


def _detr(settings: Mapping[str, Any], num_classes: int, **changes: Any) -> Any:
    kind = settings["model_type"]
    config, model = _of_transformers(kind)
    try:
        return with_plain_gains(model(_config(config, settings, num_classes, **changes)))
    except Exception as error:  # it checks values in many ways
        raise ConfigError(
            f"transformers makes no '{kind}' of this config.json ({shorten(str(error), 150, placeholder=' ...')}): use "
            "the file that was published with the weights"
        ) from None


def _config(kind: Any, settings: Mapping[str, Any], num_classes: int, **changes: Any) -> Any:
    told = {name: value for name, value in settings.items() if name != "model_type"}
    return kind(**{**copy.deepcopy(told), **changes, "num_labels": num_classes})


def _published_weights(known: Published) -> Mapping[str, Tensor]:
    """By transformers' names of today, whatever the files call them. Raises WeightsError unless all fit."""
    config, model = _of_transformers(known.settings["model_type"])
    folder = weights_folder(known)
    try:
        with _quiet():
            published, told = model.from_pretrained(
                folder,
                config=_config(config, known.settings, len(known.classes)),
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # told below
                output_loading_info=True,
            )
    except Exception as error:  # each reader has its own family of errors
        cause = shorten(str(error), 150, placeholder=" ...")
        raise WeightsError(f"cannot read weights from {folder}: {cause}") from None
    state: Mapping[str, Tensor] = published.state_dict()
    _check_fit(told, state, folder)
    return state


def _check_fit(told: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> None:
    missing = {name for name in told["missing_keys"] if not name.endswith(_COUNTERS)}
    # Files of transformers before 5 hold the layers of the decoder's answers twice.
    twice = {name for name in told["unexpected_keys"] if f"model.decoder.{name}" in state}
    unknown = {name for name in told["unexpected_keys"] if not name.endswith(_COUNTERS)} - twice
    wrong = {each[0] for each in told["mismatched_keys"]}
    if missing or unknown or wrong:
        raise WeightsError(
            f"the weights in {folder} do not fit its config.json: {len(missing)} tensors missing, {len(unknown)} "
            f"unknown, {len(wrong)} of another shape (first: {sorted(wrong or missing or unknown)[0]}): use files that "
            "were published together"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no reports of transformers: what matters is told by us."""
    logging: Any = transformers.utils.logging
    was, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(was)
        if bars:
            logging.enable_progress_bar()
