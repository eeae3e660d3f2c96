"""A plain PyTorch loop, as the transfer-learning tutorial has it: frozen features ("fixed") or all layers ("tune").

Its transforms and SGD with momentum 0.9: at 0.001 with batches of 4 for the head, at 0.01 with batches of 32 for all
layers. Frozen layers are in evaluation mode, which the tutorial forgets: it costs this network 30 points. For tiny
images a small convolutional network from scratch, AdamW and a cosine.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

import torch
from common import arguments, tell
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

MEAN = [0.5] * 3


def main() -> None:
    frozen = os.environ.get("TORCH_LOOP") == "fixed"
    asked = arguments("plain PyTorch")
    torch.manual_seed(asked.seed)
    train, val = _loaders(asked, 64 if asked.scratch else 4 if frozen else 32)
    model = small_network(len(train.dataset.classes)) if asked.scratch else _pretrained(asked, train, frozen)
    model = model.to(memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if asked.scratch:
        optimizer = torch.optim.AdamW(trained, 3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, asked.epochs)
    else:
        optimizer = torch.optim.SGD(trained, 0.001 if frozen else 0.01, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7)
    for _ in range(asked.epochs):
        model.train(not frozen)
        for images, labels in train:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        tell(_accuracy(model, val))


def _loaders(asked: Namespace, batch_size: int) -> tuple[DataLoader, DataLoader]:
    normalize = [transforms.ToTensor(), transforms.Normalize(MEAN, MEAN)]
    if asked.scratch:
        vary = [transforms.RandomCrop(32, 4, padding_mode="reflect"), transforms.RandomHorizontalFlip()]
        judge = []
    else:
        vary = [transforms.RandomResizedCrop(asked.size), transforms.RandomHorizontalFlip()]
        judge = [transforms.Resize(asked.size * 8 // 7), transforms.CenterCrop(asked.size)]
    root, workers = Path(asked.data), 2
    train = datasets.ImageFolder(root / "train", transforms.Compose([*vary, *normalize]), is_valid_file=_readable)
    val = datasets.ImageFolder(root / "val", transforms.Compose([*judge, *normalize]), is_valid_file=_readable)
    keep = {"num_workers": workers, "persistent_workers": True}
    return DataLoader(train, batch_size, shuffle=True, **keep), DataLoader(val, 64, **keep)


def _readable(path: str) -> bool:
    return path.lower().endswith((".jpg", ".jpeg", ".png"))


def _pretrained(asked: Namespace, train: DataLoader, frozen: bool) -> nn.Module:
    import timm

    model = timm.create_model("tf_efficientnet_lite0", num_classes=len(train.dataset.classes))
    missing, _ = model.load_state_dict(torch.load(asked.weights, weights_only=True), strict=False)
    assert set(missing) == {"classifier.weight", "classifier.bias"}, f"the weights do not fit: {missing[:3]}"
    if frozen:
        model.requires_grad_(False)
        model.classifier.requires_grad_(True)
    return model


def small_network(num_classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 64), (64, 128), (128, 256)):
        for width in (inputs, outputs):
            layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, num_classes))


@torch.inference_mode()
def _accuracy(model: nn.Module, val: DataLoader) -> float:
    model.eval()
    right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in val)
    return right / len(val.dataset)


if __name__ == "__main__":
    sys.exit(main())
