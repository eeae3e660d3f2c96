"""Writing files so that a crash, a full disk or a kill never leaves half of one behind."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from snellen.core.errors import RunError, StorageError

TEMPORARY_PREFIX = ".snellen-tmp-"


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write ``path`` into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StorageError(f"no space left to write {path}: free some space, or choose another --out") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StorageError(f"no permission to write {path}: choose a place you may write to with --out") from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST):
            raise StorageError(
                f"cannot write {path}: a file is where a folder is needed; choose another --out"
            ) from error
        raise


def replace_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call ``write`` on a temporary file beside ``path``, flush it to the disk, then move it into place.

    Readers see the old file or the new one, never a part. On any failure the old file stays and the temporary one
    goes. Raises StorageError.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY_PREFIX, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder for fsync
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_bytes(path: Path, content: bytes) -> None:
    replace_atomically(path, lambda temporary: _write_all(temporary, content))


def _write_all(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Names of files that are no UTF-8 are escaped, as JSON has it, and read back as they were."""
    text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def sweep_temporary(folder: Path) -> None:
    """Remove what a killed process left behind."""
    for leftover in folder.rglob(TEMPORARY_PREFIX + "*"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep every other process that asks for the same ``folder`` out of it meanwhile; a kill lets go of it, unless
    a forked child lives on.

    Raises RunError when it is held already. Nothing is held on Windows, nor on file systems that know no locks.
    """
    if os.name == "nt":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder} is being written by another process: wait until it has ended, or choose another --out"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EBADF, errno.EINVAL):
                raise
        yield
    finally:
        os.close(handle)


def sha256_of_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
