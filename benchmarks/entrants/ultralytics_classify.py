"""Ultralytics' classifier, ``yolo11n-cls``. Its weights come from the network; without them it starts from scratch.

Ultralytics is AGPL-3.0: it is run here as a program of its own, and nothing of it is part of Snellen.
"""

from __future__ import annotations

import tempfile

from common import arguments, tell
from ultralytics import YOLO


def main() -> None:
    asked = arguments("ultralytics")
    with tempfile.TemporaryDirectory() as folder:
        model = YOLO("yolo11n-cls.yaml")
        model.add_callback("on_fit_epoch_end", lambda trainer: tell(float(trainer.metrics["metrics/accuracy_top1"])))
        model.train(
            data=asked.data,
            epochs=asked.epochs,
            imgsz=32 if asked.scratch else 224,
            batch=64 if asked.scratch else 32,
            seed=asked.seed,
            workers=2,
            device="cpu",
            project=folder,
            plots=False,
            verbose=False,
        )


if __name__ == "__main__":
    main()
