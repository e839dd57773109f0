"""Encoder states on disk: a frozen encoder runs once per window, and every epoch, strategy and run reads the result.

A store is a folder of shards, `shard-00000.npy` of shape (windows, 1500, d_model) in half precision, each followed by
`shard-00000.json` with its SHA-256: a shard without that record was not finished. The store's key is made of the
encoder's weights, the audio, the transforms, the packing and the precision, so a changed input is a new store.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechft import files, locks
from speechft.errors import InputError
from speechft.whisper import attention, load, shards, windows
from speechft.whisper.load import Device

FORMAT = 2
MOST_RENDERERS = 16
MOST_SIDE_BY_SIDE = 8  # windows that a processor encodes at once: each holds its activations
STORED = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Store:
    """A complete folder of states; `read` maps shards into memory, so only touched pages are loaded."""

    path: Path
    count: int
    dtype: str

    def read(self, numbers: Sequence[int]) -> torch.Tensor:
        """States of some windows, float16 or bfloat16, shape (len(numbers), 1500, d_model).

        Raises:
            InputError: a shard is gone or cut short.
        """
        rows = []
        for number in numbers:
            path = shards.shard_path(self.path, number // shards.SHARD_WINDOWS)
            try:
                shard = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{path}: kept states cannot be read ({error}); the same command encodes them again"
                ) from error
            rows.append(torch.from_numpy(np.array(shard[number % shards.SHARD_WINDOWS])))
        states = torch.stack(rows)
        return states.view(torch.bfloat16) if self.dtype == "bfloat16" else states


def key(encoder_hash: str, plan: object, *, dtype: str, precision: str) -> str:
    """The identity of a store: 20 hex digits over everything that decides its content."""
    what = json.dumps([FORMAT, encoder_hash, dtype, precision, plan], sort_keys=True)
    return hashlib.sha256(what.encode()).hexdigest()[:20]


def size_gb(count: int, config: Any) -> float:
    """Disk that `count` windows take, in 10^9 bytes."""
    return count * config.max_source_positions * config.d_model * 2 / 1e9


def held_gb(path: Path) -> float:
    """What an earlier attempt has already kept in a store's folder, in 10^9 bytes."""
    return sum(shard.stat().st_size for shard in path.glob("shard-*.npy")) / 1e9 if path.is_dir() else 0.0


def check_disk(root: Path, needed_gb: float) -> None:
    """Refuse before the first byte when the disk is too small.

    Raises:
        InputError: less is free than the states need.
    """
    root.mkdir(parents=True, exist_ok=True)
    free_gb = shutil.disk_usage(root).free / 1e9
    if needed_gb * 1.02 > free_gb:
        raise InputError(
            f"the encoder states need {needed_gb:.2f} GB and {root} has {free_gb:.2f} GB free; "
            "free some disk, lower augment.views, or put the run elsewhere with RUNS="
        )


def keep(
    path: Path,
    *,
    count: int,
    render: Callable[[int], np.ndarray],
    encoder: Any,
    n_mels: int,
    device: Device,
    dtype: str,
    batch: int = 4,
    progress: Callable[[int], None] = lambda done: None,
) -> Store:
    """Encode windows into a store, going on after the last whole shard of an earlier attempt.

    Where another process is filling the same store, wait for it and encode only what it left.

    Args:
        path: the store's folder, named by its key.
        count: number of windows.
        render: gives window `number` as 480,000 samples; called in other threads.
        encoder: the model's encoder, float32.
        n_mels: mel bins the encoder expects.
        dtype: "float16" or "bfloat16".
        batch: windows per forward pass on a GPU; on CPU each goes alone.
        progress: told the number of windows done.

    Returns:
        the complete store.

    Raises:
        InputError: the folder cannot be written.
    """
    with locks.in_turn(path):
        shards.remove_unfinished(path)
        encoder.to(device.name).eval().requires_grad_(False)  # else autocast keeps casts, in one place for all threads
        # Attention is chosen out here too: a thread that is done would choose it back under the others.
        with _threads(device) as pool, attention.in_blocks(encoder, wanted=_wants_blocks(device)):
            for shard in range(shards.shards_of(count)):
                numbers = shards.numbers_of(shard, count)
                if not shards.is_whole(path, shard, len(numbers)):
                    _write_shard(path, shard, numbers, render, encoder, n_mels, device, dtype, batch, pool, progress)
                progress(numbers.stop)
    return Store(path=path, count=count, dtype=dtype)


def side_by_side(threads: int) -> tuple[int, int]:
    """How many windows a processor encodes at once, and with how many of PyTorch's threads each."""
    each = -(-threads // MOST_SIDE_BY_SIDE)
    return threads // each, each


@contextlib.contextmanager
def _threads(device: Device) -> Iterator[ThreadPoolExecutor]:
    """Threads that read audio and make log-mels ahead of a GPU; on CPU they encode too.

    A thread that does whole windows waits for no other, where cores that share an operator wait for the slowest after
    each, and for the thread that reads.
    """
    threads = torch.get_num_threads()
    if device.name == "cpu":
        count, each = side_by_side(threads)
        pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,))
    else:
        pool = ThreadPoolExecutor(max(1, min(MOST_RENDERERS, (os.cpu_count() or 2) - 1)))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        _give_back_memory()
        torch.set_num_threads(threads)  # what a thread sets holds for threads to come


def _give_back_memory() -> None:
    """Hand what threads freed back to the system: glibc keeps it for each thread, a tenth of a GB for two of tiny."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # musl has none
        trim(0)


def _write_shard(
    path: Path, shard: int, numbers: range, render: Callable[[int], np.ndarray], encoder: Any, n_mels: int,
    device: Device, dtype: str, batch: int, pool: ThreadPoolExecutor, progress: Callable[[int], None],
) -> None:  # fmt: skip
    def encoded(features: torch.Tensor) -> torch.Tensor:
        return encode(encoder, features, device).to(STORED[dtype]).cpu()

    rows = []
    if device.name == "cpu":
        pending = [pool.submit(lambda number: encoded(_features(render, number, n_mels)[None]), n) for n in numbers]
        for number, future in zip(numbers, pending, strict=True):
            rows.append(future.result())
            progress(number + 1)
    else:
        pending = [pool.submit(_features, render, number, n_mels) for number in numbers]
        for start in range(0, len(pending), batch):
            rows.append(encoded(torch.stack([future.result() for future in pending[start : start + batch]])))
            progress(numbers.start + start + len(rows[-1]))
    states = torch.cat(rows)
    array = (states.view(torch.int16) if dtype == "bfloat16" else states).numpy()
    with files.atomic_write(shards.shard_path(path, shard), "wb") as file:
        np.save(file, array)
    shards.write_record(path, shard, len(array))


def _features(render: Callable[[int], np.ndarray], number: int, n_mels: int) -> torch.Tensor:
    return windows.log_mel(windows.pad_window(render(number)), n_mels=n_mels)


def encode(encoder: Any, features: torch.Tensor, device: Device) -> torch.Tensor:
    """Run the encoder on log-mels (batch, n_mels, 3000); float states (batch, 1500, d_model) on the device."""
    with torch.inference_mode(), device.autocast(), attention.in_blocks(encoder, wanted=_wants_blocks(device)):
        states: torch.Tensor = encoder(features.to(device.name)).last_hidden_state
    return states


def _wants_blocks(device: Device) -> bool:
    """Whether attention in blocks is the faster one: in bf16 on a processor without AMX."""
    return device.name == "cpu" and device.precision == torch.bfloat16 and not load.processor_has("amx_bf16")
