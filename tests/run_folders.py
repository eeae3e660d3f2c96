"""Run folders as training would leave them, on pictures of noise; and names that would like to be more than text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from snellen.core.estimate import Estimate

HOSTILE = (
    "</script><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "\u202egpj.exe",
    "NUL\x00 and \x1b[31m",
    "{{ 7 * 7 }} {% raw %}",
    "$\\frac{1}{0",
    "'; DROP TABLE images; --",
    "</style><base href=//evil.example>",
    "-->",
    "x" * 4096,
    "\udcff not UTF-8",
    "名前 😀 مرحبا",
)


def estimate(value: float, n: int) -> dict[str, Any]:
    return Estimate(
        value=value, n=n, low=max(0.0, value - 0.05), high=min(1.0, value + 0.02), method="wilson"
    ).to_json()


def numbers(value: float, n: int, classes: list[str]) -> dict[str, Any]:
    return {
        "accuracy": estimate(value, n),
        "f1_macro": estimate(value - 0.01, n),
        "recall_micro": estimate(value, n),
        "log_loss": Estimate(value=0.3127, n=n).to_json(),
        **{f"recall/{name}": estimate(value - i / (9 * len(classes)), n) for i, name in enumerate(classes)},
    }


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")  # escapes what is not ASCII, also lone surrogates


def write_events(folder: Path) -> None:
    events: list[dict[str, Any]] = [{"event": "probe", "seconds": 3.0, "val/accuracy": 0.8}]
    for i in range(6):
        events.append({"event": "step", "step": i + 1, "train/step_loss": 1 / (i + 1), "lr": 0.01 * (6 - i)})
        phase, epoch = ("head", i + 1) if i < 2 else ("body", i - 1)
        events.append(
            {"event": "epoch", "phase": phase, "epoch": epoch, "step": i + 1, "seconds": 5.0 * i, "lr": 0.01}
            | {"train/loss": 1 / (i + 1), "val/loss": 1.2 / (i + 1), "val/accuracy": 0.8 + i / 50}
        )
    text = "".join(json.dumps(event) + "\n" for event in events)
    (folder / "metrics.jsonl").write_text(text + '{"event": "epo', encoding="utf-8")  # killed while writing


def write_run(
    folder: Path, classes: list[str], *, num_rows: int = 60, num_test: int = 40, num_pictures: int = 3, side: int = 64
) -> Path:
    """A finished run on pictures of noise, as training would leave it."""
    rng = np.random.default_rng(0)
    (folder / "predictions").mkdir(parents=True)
    (folder / "pictures").mkdir()
    (folder / "STATUS").write_text("done\n")
    rows = [
        {"id": f"{i}.jpg", "labels": [classes[i % len(classes)]], "split": ("train", "val", "test")[i // 2 % 3]}
        for i in range(num_rows)
    ]
    manifest = {"classes": classes, "rows": rows, "origin": "snellen", "reasons": ["Divided 70/15/15."], "digest": "0"}
    left_out = [{"path": f"{name}.jpg", "reason": f"cannot be decoded: {name}"} for name in classes[:20]]
    data: dict[str, Any] = {"version": 1, "name": classes[0], "task": "classification", "format": "folder"}
    write_json(folder / "data.json", {**data, "manifest": manifest, "left_out": left_out, "summary": {}})
    truth = rng.integers(0, len(classes), num_test)
    scores = rng.random((num_test, len(classes)), dtype=np.float32)
    scores[np.arange(num_test), truth] += 1
    save_file({"scores": scores, "truth": truth}, folder / "predictions" / "test.safetensors")
    names = ["contact_sheet.webp"]
    names += [f"example-{i}-{k}.webp" for i in range(min(len(classes), 100)) for k in range(num_pictures)]
    names += [f"mistake-{k:03}.webp" for k in range(num_pictures)]
    for name in names:
        pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / name, "BMP")
    mistakes = [
        {"id": f"{classes[k % len(classes)]}.jpg", "truth": classes[0], "predicted": classes[-1], "confidence": 0.98}
        | {"picture": f"pictures/mistake-{k:03}.webp"}
        for k in range(num_pictures)
    ]
    splits = {"val": numbers(0.95, 20, classes), "test": numbers(0.9321, num_test, classes)}
    baselines = {
        "majority": {"test": {"accuracy": estimate(0.5, num_test)}, "val": {"accuracy": estimate(0.5, 20)}},
        "linear probe": {"test": {"accuracy": estimate(0.8712, num_test)}, "val": {"accuracy": estimate(0.88, 20)}},
    }
    results = {"version": 1, "headline": "accuracy", "verdict": f"Good at {classes[0]}.", "shipped": "fine-tuned"}
    results |= {"best_epoch": 5, "seconds": 250.0, "splits": splits, "baselines": baselines, "mistakes": mistakes}
    write_json(folder / "results.json", results)
    choices = {"task": "classification", "model": classes[0], "epochs": 4, "augmentation": {"flip": True, "x": [1, 2]}}
    write_json(
        folder / "plan.json", {"version": 1, "choices": choices, "reasons": {"epochs": f"As {classes[0]} says."}}
    )
    finding: dict[str, Any] = {
        "code": "leak-across-splits",
        "message": f"{classes[0]} is in both.",
        "advice": f"Remove {classes[0]}.",
    }
    finding |= {"evidence": {classes[0]: 1, "pairs": [classes[0]]}, "images": classes[:30]}
    quiet = {"code": "few-images", "severity": "info", "message": "Few images.", "advice": "Nothing."}
    write_json(folder / "findings.json", [quiet, {**finding, "severity": "serious"}])
    write_json(folder / "environment.json", {"run_version": 1, "python": "3.11", "command": ["train", classes[0]]})
    write_events(folder)
    return folder
