"""How much memory a long prediction needs: python scripts/predict_memory.py runs/RUN [--images 20000]

One tiny image is named again and again, so that nothing but the number of images grows. Prints the resident memory at
some of them; with a run or an exported model.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import psutil
from PIL import Image

from snellen.api.opening import open_model
from snellen.predict.predictor import Predictor
from snellen.predict.sources import Images
from snellen.predict.writing import write_predictions

PIECES = 10  # how many times memory is looked at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=20_000)
    asked = parser.parse_args()
    process, every = psutil.Process(), max(1, asked.images // PIECES)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        Image.effect_noise((48, 36), 80).convert("RGB").save(folder / "noise.png")
        (folder / "list.txt").write_text("noise.png\n" * asked.images)
        predictor = Predictor(open_model(asked.model).answering)

        def advance(done: int, total: int) -> None:
            if done % every == 0:
                print(f"{done:>9,} images  {process.memory_info().rss / 2**20:8.1f} MB", flush=True)

        write_predictions(
            predictor, Images([folder / "list.txt"]), folder / "out", ["csv", "jsonl"], asked={}, advance=advance
        )


if __name__ == "__main__":
    main()
