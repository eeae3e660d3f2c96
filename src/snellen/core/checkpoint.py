"""Weights and what is needed to use them, in one safetensors file: tensors, a JSON header, a checksum. Never pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snellen.core.errors import RunError
from snellen.core.estimate import Estimate
from snellen.core.files import write_bytes
from snellen.core.plan import Plan

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_VERSION = 1
_KEY = "snellen"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model that can be used: ``weights`` fit the network that ``plan`` describes.

    origin    'linear probe' or 'fine-tuned'
    metrics   on the validation split, at the moment it was saved
    decision  of the task (tasks/base.py): how its probabilities become decisions; empty: as usual
    """

    weights: Mapping[str, Tensor]
    plan: Plan
    origin: str
    epoch: int
    step: int
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    decision: tuple[float, ...] = ()

    def save(self, path: Path) -> None:
        header = {
            "version": CHECKPOINT_VERSION,
            "plan": self.plan.to_json(),
            "origin": self.origin,
            "epoch": self.epoch,
            "step": self.step,
            "metrics": {name: estimate.to_json() for name, estimate in self.metrics.items()},
            "decision": list(self.decision),
        }
        save_tensors(path, self.weights, header)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Raises RunError when the file is missing, damaged, or of a newer version."""
        weights, header = load_tensors(path)
        return cls(
            weights=weights,
            plan=Plan.from_json(header["plan"]),
            origin=header["origin"],
            epoch=header["epoch"],
            step=header["step"],
            metrics={name: Estimate.from_json(fields) for name, fields in header["metrics"].items()},
            decision=tuple(header.get("decision", ())),  # files of before there were decisions have none
        )


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write atomically. ``header`` is JSON and must hold a 'version'. Raises StorageError."""
    from safetensors.torch import save

    # A copy per tensor: safetensors refuses tensors that share memory or are not contiguous (channels-last weights).
    flat = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    described = {**header, "sha256": _digest(flat, header)}
    # Not its save_file: on a full disk that raises an error of its own kind, which storage_errors would not know.
    write_bytes(path, save(flat, {_KEY: json.dumps(described)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read and verify what save_tensors wrote. Raises RunError, naming the file."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise RunError(f"no checkpoint at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            if header["version"] > CHECKPOINT_VERSION:
                raise RunError(
                    f"{path} has format version {header['version']}, newer than the {CHECKPOINT_VERSION} that this "
                    "Snellen reads: update Snellen"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise RunError(f"the checkpoint {path} is damaged: {error}") from None
    expected = header.pop("sha256", None)
    if expected != _digest(tensors, header):
        raise RunError(f"the checkpoint {path} is damaged: its checksum does not match")
    return tensors, header


def _digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
