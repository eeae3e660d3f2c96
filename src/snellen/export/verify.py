"""Does an artifact still do what it was verified to do: on this machine, with this runtime, after this copy."""

from __future__ import annotations

from pathlib import Path

from snellen.core.console import Console
from snellen.core.errors import RunError, SnellenError
from snellen.core.files import sha256_of_file
from snellen.export import goldens
from snellen.export.artifact import MANIFEST, open_artifact

SUMS = "SHA256SUMS"


def verify_folder(path: Path, console: Console) -> list[str]:
    """What is wrong, a line each; empty: nothing. Raises RunError for what is no whole artifact."""
    if path.is_file():
        raise RunError(f"{path} is a lone model, and what it must say lies beside it: give the folder it came in")
    wrong = changed_files(path)
    try:
        artifact = open_artifact(path)
    except SnellenError as error:
        if not wrong:
            raise
        return [*wrong, str(error)]
    proof = goldens.read(path)
    tolerance = goldens.FP32 if artifact.manifest.precision == "fp32" else goldens.LOOSE
    with console.progress("Checking goldens", len(proof)) as advance:
        for n, golden in enumerate(proof, start=1):
            wrong += goldens.check(artifact.run, [golden], tolerance)
            advance(n, len(proof))
    return wrong


def changed_files(path: Path) -> list[str]:
    """Those whose content is not what it was when the artifact was written, or that are gone."""
    if not (path / SUMS).is_file():
        raise RunError(f"{path} has no {SUMS}: it is not whole")
    found, named = [], set[str]()
    for line in (path / SUMS).read_text(encoding="utf-8", errors="replace").splitlines():
        expected, _, name = line.partition("  ")
        named.add(name)
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()) or not file.is_file():
            found.append(f"{name} is missing")
        elif sha256_of_file(file) != expected:
            found.append(f"{name} was changed")
    return found + [f"{name} is not in {SUMS}" for name in sorted({MANIFEST} - named)]
