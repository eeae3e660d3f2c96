"""What audits say of healthy data and of the same data with wrong labels and copies: true and false alarms.

    RIVALS/bin/python benchmarks/audit_rivals.py

The data are scikit-learn's 1,797 digits, written as PNG files in a folder for each class, in three forms: as they are;
with 5 % of the labels wrong; and with 5 % copied, recompressed as JPEG, under another name. RIVALS is a virtual
environment with snellen, cleanlab[datalab], cleanvision and imagededup; those that can't be imported are left out.

Every tool runs at its defaults on files. cleanlab needs probabilities: a logistic regression on the pixels gives them,
out of sample in five folds. Told is how many images are named, how many of the planted ones are among them, and how
many others. The digits hold no two equal images, and few wrong labels if any: what is said of the healthy ones is an
alarm too many. snellen names the first images of a finding, and the number in all.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SHARE = 0.05
Named = dict[str, set[str]]  # kind of issue -> file names


def write(folder: Path, fault: str, seed: int) -> set[str]:
    """The digits as 32 x 32 PNG files in a folder for each class; the names of the planted files."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(seed)
    chosen = set(rng.choice(len(digits.target), round(SHARE * len(digits.target)), replace=False).tolist())
    planted = set()
    for i, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        image = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
        if fault == "labels" and i in chosen:
            label = (label + rng.integers(1, 10)) % 10
            planted.add(f"{i:05}.png")
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        image.save(folder / str(label) / f"{i:05}.png")
        if fault == "copies" and i in chosen:
            image.save(folder / str(label) / f"{i:05}-copy.jpg", quality=60)
            planted |= {f"{i:05}.png", f"{i:05}-copy.jpg"}
    return planted


# ---- the tools


def by_snellen(folder: Path) -> Named:
    from snellen import audit

    with tempfile.TemporaryDirectory() as out:
        found = audit(folder, out=Path(out) / "audit").findings
    named = {}
    for each in found:
        # A finding names its 24 first images; those whose labels it would change are all in its treatment.
        changed = [row["image"] for row in (each.treatment or {}).get("overlay", ())]
        in_all = each.evidence.get("num_suspects") or each.evidence.get("num_redundant")
        kind = f"{each.code} ({each.severity}{f', {in_all} in all' if in_all else ''})"
        named[kind] = {Path(name).name for name in (*each.images, *changed)}
    return named


def by_cleanlab_filter(folder: Path) -> Named:
    from cleanlab.filter import find_label_issues

    paths, features, labels = read(folder)
    issues = find_label_issues(labels, probabilities(features, labels), return_indices_ranked_by="self_confidence")
    return {"label": {paths[i].name for i in issues}}


def by_cleanlab_datalab(folder: Path) -> Named:
    from cleanlab import Datalab

    paths, features, labels = read(folder)
    lab = Datalab(data={"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=probabilities(features, labels), features=features)
    issues = lab.get_issues()
    kinds = [name for name in issues.columns if name.startswith("is_") and name.endswith("_issue")]
    return {
        name.removeprefix("is_").removesuffix("_issue"): {paths[i].name for i in np.flatnonzero(issues[name])}
        for name in kinds
    }


def by_cleanvision(folder: Path) -> Named:
    from cleanvision import Imagelab

    lab = Imagelab(data_path=str(folder), verbose=False)
    lab.find_issues(n_jobs=1, verbose=False)
    kinds = [name for name in lab.issues.columns if name.startswith("is_") and name.endswith("_issue")]
    return {
        name.removeprefix("is_").removesuffix("_issue"): {Path(at).name for at in lab.issues.index[lab.issues[name]]}
        for name in kinds
    }


def by_imagededup(folder: Path) -> Named:
    from imagededup.methods import PHash

    method = PHash(verbose=False)
    found = method.find_duplicates(image_dir=folder, recursive=True, num_enc_workers=1, num_dist_workers=1)
    return {"duplicates": {Path(name).name for name, others in found.items() if others}}


def read(folder: Path) -> tuple[list[Path], np.ndarray, np.ndarray]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    pixels = [np.asarray(Image.open(path).convert("L").resize((8, 8), Image.Resampling.BOX)).ravel() for path in paths]
    return paths, np.stack(pixels) / 255.0, np.array([int(path.parent.name) for path in paths])


def probabilities(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    model = LogisticRegression(C=10.0, max_iter=5_000)
    return np.asarray(cross_val_predict(model, features, labels, cv=5, method="predict_proba"))


TOOLS: dict[str, tuple[str, Callable[[Path], Named]]] = {
    "snellen audit": ("snellen", by_snellen),
    "cleanlab find_label_issues": ("cleanlab", by_cleanlab_filter),
    "cleanlab Datalab": ("datasets", by_cleanlab_datalab),
    "cleanvision": ("cleanvision", by_cleanvision),
    "imagededup PHash": ("imagededup", by_imagededup),
}
_OF = {"labels": ("label",), "copies": ("duplicate",)}  # kinds of issue that are about the fault


def tell(named: Named, planted: set[str], fault: str) -> None:
    for kind, names in sorted(named.items()):
        if not names:
            continue
        if fault == "healthy":
            told = f"{len(names)} images"
        elif any(part in kind for part in _OF.get(fault, ())):
            right = len(names & planted)
            told = f"{right} of {len(planted)} planted, {len(names) - right} others"
        else:
            told = f"{len(names)} images, of another matter"
        print(f"    {kind:32} {told}")
    if not any(named.values()):
        print("    nothing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tools", default=",".join(TOOLS), help="some of the tools, by name (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter("ignore")  # of the other tools
    for fault in ("healthy", "labels", "copies"):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "digits"
            planted = write(folder, fault, chosen.seed)
            print(f"\n{fault}: {len(planted)} files planted")
            for name in chosen.tools.split(","):
                package, look = TOOLS[name]
                if importlib.util.find_spec(package) is None:
                    print(f"  {name}: {package} is not installed")
                    continue
                began = time.perf_counter()
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                    named = look(folder)
                print(f"  {name} ({time.perf_counter() - began:.0f} s)", flush=True)
                tell(named, planted, fault)


if __name__ == "__main__":
    main()
