"""requirements.lock: complete, held to hashes, and tied to no index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PIN = re.compile(r"([a-z0-9-]+)==[0-9][0-9A-Za-z.+]*( ; [^\\]+)?( \\\n {4}--hash=sha256:[0-9a-f]{64})+\n")


def test_lock_is_pins_with_hashes_and_nothing_else() -> None:
    assert "".join(pin.group() for pin in PIN.finditer(LOCK)) == LOCK


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-") for requirement in declared}
    assert names <= {pin.group(1) for pin in PIN.finditer(LOCK)}
