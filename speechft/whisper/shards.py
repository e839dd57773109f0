"""Shards of kept states on disk: `shard-00000.npy`, and beside it a record of its bytes, written last.

Without PyTorch, so that a run that is up to date can say so at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
from concurrent.futures import Executor
from pathlib import Path
from typing import IO, Any

import numpy as np

from speechft import files
from speechft.errors import InputError

logger = logging.getLogger(__name__)

SHARD_WINDOWS = 64
SYNCED_BYTES = 32_000_000  # that may wait for the disk at once: some ten windows of large


def shard_path(store: Path, shard: int) -> Path:
    """Where a shard lies."""
    return store / f"shard-{shard:05d}.npy"


def numbers_of(shard: int, count: int) -> range:
    """The windows of a shard in a store of `count`."""
    return range(shard * SHARD_WINDOWS, min(count, (shard + 1) * SHARD_WINDOWS))


def shards_of(count: int) -> int:
    """How many shards `count` windows take."""
    return -(-count // SHARD_WINDOWS)


def is_whole(store: Path, shard: int, rows: int) -> bool:
    """Whether a shard's record and bytes agree; a damaged one is told. The checksum is made again where size or time
    differ."""
    data_path = shard_path(store, shard)
    record_path = data_path.with_suffix(".json")
    if not record_path.exists() or not data_path.exists():
        return False
    record: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # a damaged record says nothing of its shard
        held = files.read_json(record_path)
        record = held if isinstance(held, dict) else {}
    stat = data_path.stat()
    if record.get("rows") == rows and stat.st_size == record.get("size"):
        untouched = stat.st_mtime_ns == record.get("mtime_ns")
        if untouched or files.sha256(data_path) == record.get("sha256"):
            return True
    logger.warning("%s: the shard is damaged and is encoded again", data_path)
    return False


def all_whole(store: Path, count: int) -> bool:
    """Whether every shard of a store is there and undamaged."""
    return all(is_whole(store, shard, len(numbers_of(shard, count))) for shard in range(shards_of(count)))


class Writer:
    """A shard that is written as its windows come; bytes reach the disk and the checksum at the same time.

    So the checksum is of what was given to the disk: it is not read back.

    Args:
        file: open for writing, in binary.
        shape: of the whole array.
        helper: a thread that sums up what this one writes.
    """

    def __init__(self, file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], helper: Executor) -> None:
        self._file, self._helper, self._digest, self._unsynced = file, helper, hashlib.sha256(), 0
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        )
        self._put(header.getbuffer())

    def append(self, rows: np.ndarray) -> None:
        """The next rows, C-contiguous."""
        self._put(rows.reshape(-1).view(np.uint8).data)
        if self._unsynced >= SYNCED_BYTES:  # so that the last sync, which everything waits for, is short
            self._file.flush()
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def _put(self, held: memoryview) -> None:
        summed = self._helper.submit(self._digest.update, held)
        self._file.write(held)
        summed.result()
        self._unsynced += len(held)

    @property
    def sha256(self) -> str:
        """Of all that was written, in hexadecimal."""
        return self._digest.hexdigest()


def write_record(store: Path, shard: int, rows: int, *, sha256: str) -> None:
    """Record a shard that is written whole."""
    data_path = shard_path(store, shard)
    stat = data_path.stat()
    record = {"rows": rows, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}
    files.write_json(data_path.with_suffix(".json"), record)


def remove_unfinished(store: Path) -> None:
    """Remove what a killed attempt was writing."""
    for path in store.glob(f".*{files.TEMP_SUFFIX}"):
        path.unlink(missing_ok=True)
