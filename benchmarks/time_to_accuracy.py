"""Wall clock from the shell to a validation accuracy: the whole command, imports included.

    python benchmarks/time_to_accuracy.py photos/ --accuracy 0.94 --repeats 3

Each repeat is a process of its own with an empty cache of features. The time at which each result was known is read
from the run's metrics.jsonl, which counts from the start of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--accuracy", type=float, default=0.94)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--options", nargs="*", default=[], help="further options of snellen train")
    arguments = parser.parse_args()
    rows = [measure(arguments.data, arguments.accuracy, arguments.options) for _ in range(arguments.repeats)]
    heads = ("repeat", "probe known", "probe accuracy", f"reached {arguments.accuracy}", "whole run")
    print("  ".join(f"{head:>14}" for head in heads))
    for i, row in enumerate(rows, start=1):
        reached = "never" if row["reached"] is None else f"{row['reached']:.1f} s"
        print(f"{i:>14}  {row['probe']:>12.1f} s  {row['accuracy']:>14.3f}  {reached:>14}  {row['whole']:>12.1f} s")
    known = [row["reached"] for row in rows if row["reached"] is not None]
    if known:
        median = statistics.median(known)
        print(f"median to {arguments.accuracy}: {median:.1f} s ({len(known)} of {len(rows)} runs got there)")


def measure(data: str, accuracy: float, options: list[str]) -> dict[str, float | None]:
    """Seconds from the start of the process to the first validation accuracy that is high enough."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "snellen", "train", data, "--out", str(out), "--cache", f"{folder}/cache"]
        start = time.monotonic()
        subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL)
        whole = time.monotonic() - start
        events = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    judged = [event for event in events if "val/accuracy" in event]
    reached = [event["seconds"] for event in judged if event["val/accuracy"] >= accuracy]
    probe = next(event for event in judged if event["event"] == "probe")
    return {
        "probe": probe["seconds"],
        "accuracy": probe["val/accuracy"],
        "reached": reached[0] if reached else None,
        "whole": whole,
    }


if __name__ == "__main__":
    main()
