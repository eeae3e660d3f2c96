"""Detectors as they are published for transformers, small enough for tests: a folder of each kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shapes import SHAPES
from snellen.core.plan import Plan
from snellen.core.preprocessing import Preprocessing
from snellen.nn.detection.architectures import create_detector, load_detector
from snellen.nn.published import read_published
from tiny_runs import a_plan

KINDS = ("rt_detr", "d_fine", "rf_detr", "rt_detr_v2")
SIDE = 32
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)

_STAGES = {"out_features": ["stage2", "stage3", "stage4"]}
_RESNET = {
    "model_type": "rt_detr_resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 12, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    **_STAGES,
}
_HGNET = {
    "model_type": "hgnet_v2",
    "embedding_size": 8,
    "stem_channels": [3, 8, 8],
    "hidden_sizes": [8, 8, 12, 16],
    "stage_in_channels": [8, 8, 8, 12],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 8, 12, 16],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    **_STAGES,
}
_DINO = {
    "model_type": "rf_detr_dinov2",
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "out_features": ["stage2", "stage4"],
    "image_size": 32,
    "patch_size": 8,
    "num_windows": 2,
}
_HYBRID = {
    "encoder_in_channels": [8, 12, 16],
    "decoder_in_channels": [16, 16, 16],
    "encoder_hidden_dim": 16,
    "d_model": 16,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "decoder_layers": 2,
    "num_queries": 8,
    "num_denoising": 4,
}
_DECODER = {
    "d_model": 16,
    "decoder_ffn_dim": 24,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "num_queries": 8,
    "group_detr": 3,
    "c2f_num_blocks": 1,
}
_SETTINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "rt_detr": ("RTDetr", {**_HYBRID, "backbone_config": _RESNET}),
    "rt_detr_v2": ("RTDetrV2", {**_HYBRID, "backbone_config": _RESNET}),
    "d_fine": ("DFine", {**_HYBRID, "backbone_config": _HGNET, "lqe_hidden_dim": 8, "depth_mult": 0.34}),
    "rf_detr": ("RfDetr", {**_DECODER, "backbone_config": _DINO}),
}


def publish(kind: str, folder: Path, classes: Sequence[str] = SHAPES, **changes: Any) -> str:
    """Save a detector of ``kind`` that has learnt something, however little sense it makes; the model's name."""
    stem, settings = _SETTINGS[kind]
    names = dict(enumerate(classes))
    changes = {**settings, "id2label": names, "label2id": {name: i for i, name in names.items()}, **changes}
    config = getattr(transformers, f"{stem}Config")(**json.loads(json.dumps(settings)) | changes)
    torch.manual_seed(7)
    detector = getattr(transformers, f"{stem}ForObjectDetection")(config)
    for name, parameter in detector.named_parameters():
        if parameter.dim() == 1 and parameter.is_floating_point():
            nn.init.normal_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.3)
    detector.save_pretrained(folder)
    seen = {"do_normalize": True, "image_mean": MEAN, "image_std": STD, "size": {"height": SIDE, "width": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(seen))
    return f"hf:{folder}"


def as_transformers_has_it(kind: str, model: str) -> Any:
    """transformers' own detector, in evaluation mode."""
    stem, _ = _SETTINGS[kind]
    return getattr(transformers, f"{stem}ForObjectDetection").from_pretrained(model.removeprefix("hf:")).eval()


def plan_of(model: str, **changes: Any) -> Plan:
    """For the detector at its own size; as it comes back from plan.json."""
    known = read_published(model)
    seen = Preprocessing(input_size=known.input_size, fit="squash", crop_fraction=1.0, mean=known.mean, std=known.std)
    settings = {"architecture": known.architecture, "published": known.settings, "preprocessing": seen}
    usual = {"pretrained": True, "loss": "auto", "norm": "auto", "activation": "auto"}
    plan = a_plan(model=model, **{**settings, **usual, **changes})
    return Plan.from_json(json.loads(json.dumps(plan.to_json())))


def standardised(images: Tensor) -> Tensor:
    """uint8 [n, 3, h, w] as the published detectors take them."""
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (MEAN, STD))
    return (images / 255 - mean) / std


def a_detector(model: str, classes: Sequence[str] = SHAPES, *, load: bool = True, **changes: Any) -> Any:
    torch.manual_seed(3)
    plan = plan_of(model, **changes)
    detector = create_detector(plan, len(classes))
    if load:
        load_detector(detector, plan, classes)
    return detector.eval()


def noise(count: int = 2) -> Tensor:
    draws = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=draws, dtype=torch.uint8)


def copied(model: str, folder: Path, change: Callable[[dict[str, Any]], object] = lambda settings: None) -> str:
    """The published files in another folder, their config.json changed."""
    shutil.copytree(model.removeprefix("hf:"), folder)
    settings = json.loads((folder / "config.json").read_text())
    change(settings)
    (folder / "config.json").write_text(json.dumps(settings))
    return f"hf:{folder}"


def with_tensors(model: str, folder: Path, change: Callable[[dict[str, Tensor]], object]) -> str:
    """The published files in another folder, their weights changed."""
    copied(model, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return f"hf:{folder}"
