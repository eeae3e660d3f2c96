"""Where a verb writes: its folder, checked before any work, and the cache."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from snellen.core.config import Config
from snellen.core.errors import StorageError
from snellen.core.run import RunFolder

_RUNS = "runs"


def default_cache() -> Path:
    """Where features and samples are kept between runs; safe to delete."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "snellen"


def cache_of(config: Config) -> Path:
    cache = Path(config.cache) if config.cache else default_cache()
    os.environ.setdefault("MPLCONFIGDIR", str(cache / "matplotlib"))  # it would keep its list of fonts elsewhere
    return cache


def anchored(config: Config) -> Config:
    """With absolute paths: a run is resumed and evaluated from other folders than the one it was started in."""
    from snellen.data.samples import PREFIX

    named = {name: getattr(config, name) for name in ("data", "images", "overlay", "weights", "cache")}
    paths = {name: os.path.abspath(path) for name, path in named.items() if path and not path.startswith(PREFIX)}
    return config.model_copy(update=paths)


def check_place(out: str | Path | None, *, resumable: bool = False) -> None:
    """Before anything long begins. Raises RunError when ``out`` is taken, StorageError when no folder can be there.

    ``resumable``: the verb can go on with what it began there.
    """
    if out is not None:
        RunFolder.check_free(Path(out), resumable=resumable)
    target = Path(os.path.abspath(out or _RUNS))
    above = next(folder for folder in (target, *target.parents) if folder.exists())
    if not above.is_dir():
        raise StorageError(f"cannot write {out or _RUNS}: {above} is a file; choose another --out")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StorageError(f"no permission to write in {above}: choose a place you may write to with --out")


def fresh_folder(name: str) -> Path:
    """runs/<time>-<name>-<four letters>: never the folder of another run."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "data"
    return Path(_RUNS) / f"{datetime.now():%Y-%m-%d_%H%M%S}-{safe}-{secrets.token_hex(2)}"


@contextmanager
def removed_on_failure(run: RunFolder) -> Iterator[None]:
    """A folder whose run could not begin could not be resumed either."""
    try:
        yield
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
