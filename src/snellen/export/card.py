"""The card of a model, for a person: what it answers, how good it is, what is wrong with it, how to run it."""

from __future__ import annotations

from snellen.core.estimate import spoken
from snellen.export.manifest import Manifest
from snellen.export.verification import differing

_RUN = {
    "onnx": "`python predict.py model.onnx photo.jpg` needs onnxruntime, numpy and Pillow, and nothing else.",
    "openvino": '`openvino.Core().compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})`: without the '
    "hint OpenVINO computes in bf16 where the CPU has it, which is not what was verified.",
    "torch": '`import torch, torchvision; torch.export.load("model.pt2").module()`.',
}


def written(manifest: Manifest) -> str:
    """Markdown. Names of classes are indented code, so that nothing in them is markup."""
    plan, checked = manifest.plan, manifest.checked
    lines = [
        f"# A model for {plan.task}",
        "",
        f"`{manifest.file}`, {manifest.precision}. Input: `image`, uint8 [images, height, width, 3], RGB, upright, of "
        "any size. Resize, normalisation, network and decoding are in the graph; answers are in pixels of the image.",
        "",
        _RUN[manifest.format],
        "",
        *[f"* `{name}`: {meaning}" for name, meaning in manifest.outputs.items()],
        "",
        *_members(manifest),
        "Classes:",
        "",
        *[f"    {i}  {' '.join(name.split())}" for i, name in enumerate(plan.classes)],
        "",
        "## How good it is",
        "",
        *_metrics(manifest),
        "",
        f"Verified against the {_networks(manifest)}, on {checked['images']} images of {checked['split']}: "
        f"{differing(checked)}, {spoken(checked['headline'])} "
        f"{checked['artifact']:.4f} beside {checked['network']:.4f}.",
        "",
        "## Known weaknesses",
        "",
        *([f"* {' '.join(str(each['message']).split())}" for each in manifest.weaknesses] or ["None was found."]),
        "",
        *_weights(manifest),
        "",
    ]
    return "\n".join(lines)


def _networks(manifest: Manifest) -> str:
    count = len(manifest.members)
    return f"{count} networks that were trained" if count else "network that was trained"


def _members(manifest: Manifest) -> list[str]:
    """What the answers are made of."""
    if not manifest.members:
        return []
    told = [
        f"* {each['model']} at {each['input_size'][0]} x {each['input_size'][1]} pixels ({each['fit']}), "
        f"{100 * each['weight']:.0f} %"
        for each in manifest.members
    ]
    joined = "Boxes fused by weight, of" if manifest.plan.task == "detection" else "The weighted mean of"
    return [f"{joined} {len(told)} networks, each with an input of its own:", "", *told, ""]


def _weights(manifest: Manifest) -> list[str]:
    plan = manifest.plan
    own = {"weights_source": plan.weights_source, "weights_license": plan.weights_license}
    every = [f"Weights: {each['weights_source']}, {each['weights_license']}." for each in manifest.members or (own,)]
    return list(dict.fromkeys(every))


def _metrics(manifest: Manifest) -> list[str]:
    return [
        f"* {split}: {spoken(name)} {estimate}"
        for split, numbers in manifest.metrics.items()
        for name, estimate in numbers.items()
        if name == manifest.headline
    ]
