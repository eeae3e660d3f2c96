"""What is marked in the images of a manifest: how many objects, and hashes, so that other marks are other data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from snellen.core.errors import DataError
from snellen.core.record import Record
from snellen.data.manifest import Manifest, Row


def with_marks(manifest: Manifest, records: Mapping[str, Record], workers: int) -> Manifest:
    """``manifest`` with ``truth`` and ``objects`` in the rows of images that have marks; masks are read once.

    Raises DataError for a mask that cannot be read.
    """
    if not any(record.objects is not None or record.mask is not None for record in records.values()):
        return manifest
    with ThreadPoolExecutor(workers) as pool:
        rows = tuple(pool.map(lambda row: _marked(row, records[row.id], manifest.classes), manifest.rows))
    return replace(manifest, rows=rows)


def _marked(row: Row, record: Record, classes: tuple[str, ...]) -> Row:
    if record.mask is not None:
        return replace(row, truth=_digest_of_mask(record))
    if record.objects is None:
        return row
    found = Counter(each.label for each in record.objects)
    digest = hashlib.sha256(repr(record.objects).encode("utf-8", "surrogatepass")).hexdigest()
    return replace(row, truth=digest, objects=tuple(found[name] for name in classes))


def _digest_of_mask(record: Record) -> str:
    assert record.mask is not None
    try:
        content = record.mask.path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the mask {record.mask.path}: {error.strerror or error}") from None
    digest = hashlib.sha256(content)
    digest.update(repr(sorted(record.mask.values.items())).encode())
    return digest.hexdigest()
