"""Peak memory of each verb as a process of its own (the kernel's own count, ru_maxrss of the child).

python benchmarks/memory.py photos/
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as folder:
        run, cache = f"{folder}/run", ["--cache", f"{folder}/cache"]
        verbs = {
            "help": ["--help"],
            "audit": ["audit", data, "--out", f"{folder}/audit", *cache],
            "train": ["train", data, "--out", run, "--epochs", "1", *cache],
            "evaluate": ["evaluate", run],
            "predict": ["predict", run, data],
        }
        print(f"{'verb':10} {'peak memory':>12}")
        for name, words in verbs.items():
            print(f"{name:10} {peak_megabytes([sys.executable, '-m', 'snellen', *words]):>9.0f} MB")


def peak_megabytes(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        raise SystemExit(f"failed: {' '.join(command)}")
    return usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
