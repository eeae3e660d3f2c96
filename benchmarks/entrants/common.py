"""What the entrants of benchmarks/race.py share: the command line, and the line that they print."""

from __future__ import annotations

import argparse
import json


def arguments(description: str) -> argparse.Namespace:
    """data: a folder with train/ and val/.

    weights: a state dict under timm's names, without the classifier. size: pixels that pretrained networks are fed.
    scratch: no weights, a small network for images of 32 pixels.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data")
    parser.add_argument("--weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--scratch", action="store_true")
    return parser.parse_args()


def tell(accuracy: float) -> None:
    """A validation result is known now; the race notes when the line comes."""
    print(json.dumps({"accuracy": accuracy}), flush=True)
