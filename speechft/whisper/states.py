"""Encoder states on disk: a frozen encoder runs once per window, and every epoch, strategy and run reads the result.

A store is a folder of shards, `shard-00000.npy` of shape (windows, 1500, d_model) in half precision, each followed by
`shard-00000.json` with its SHA-256: a shard without that record was not finished. The store's key is made of the
encoder's weights, the audio, the transforms, the packing and the precision, so a changed input is a new store.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from speechft import files, locks
from speechft.errors import InputError
from speechft.whisper import attention, load, memory, shards, windows
from speechft.whisper.load import Device

T = TypeVar("T")

FORMAT = 2
MOST_RENDERERS = 16
AHEAD = 4  # windows that are rendered ahead, for each thread
BATCH = 8  # windows per forward pass on a GPU; on CPU each goes alone
BATCHES_AHEAD = 3  # given to a GPU before the first is on the disk
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
        states = None
        for row, number in enumerate(numbers):
            path = shards.shard_path(self.path, number // shards.SHARD_WINDOWS)
            try:
                shard = np.load(path, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise InputError(
                    f"{path}: kept states cannot be read ({error}); the same command encodes them again"
                ) from error
            if states is None:  # copied once, to where a GPU takes it from
                kind, pinned = torch.from_numpy(shard[:0].copy()).dtype, torch.cuda.is_available()
                states = torch.empty((len(numbers), *shard.shape[1:]), dtype=kind, pin_memory=pinned)
            states[row].numpy()[...] = shard[number % shards.SHARD_WINDOWS]
        assert states is not None
        return states.view(torch.bfloat16) if self.dtype == "bfloat16" else states


def key(encoder_hash: str, plan: Iterable[object], *, dtype: str, precision: str) -> str:
    """The identity of a store: 20 hex digits over everything that decides its content.

    Args:
        plan: what each window's states depend on, as JSON values.
    """
    start = json.dumps([FORMAT, encoder_hash, dtype, precision])
    digest = hashlib.sha256(f"{start[:-1]}, [".encode())
    for number, window in enumerate(plan):  # a window at a time: there may be millions
        digest.update(f"{', ' if number else ''}{json.dumps(window, sort_keys=True)}".encode())
    digest.update(b"]]")
    return digest.hexdigest()[:20]


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
    end: Callable[[int], int] = lambda number: windows.N_FRAMES,
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
        end: gives the frame from which log-mels of window `number` are zero, as `windows.fill` makes them.
        progress: told the number of windows done.

    Returns:
        the complete store.

    Raises:
        InputError: the folder cannot be written.
    """
    with locks.in_turn(path):
        shards.remove_unfinished(path)
        encoder = ready(encoder, device)
        wanted = [shards.numbers_of(shard, count) for shard in range(shards.shards_of(count))]
        todo = [numbers for shard, numbers in enumerate(wanted) if not shards.is_whole(path, shard, len(numbers))]
        # Attention is chosen out here too: a thread that is done would choose it back under the others.
        with _threads(device) as (pool, workers), attention.in_blocks(encoder, wanted=_wants_blocks(device)):
            work = _Work(render=render, end=end, encoder=encoder, n_mels=n_mels, device=device, dtype=STORED[dtype])
            make = _on_cpu if device.name == "cpu" else _on_gpu
            with contextlib.closing(make(work, todo, pool, AHEAD * workers)) as made:
                _write(path, wanted, todo, made, encoder.config, dtype, progress)
    return Store(path=path, count=count, dtype=dtype)


def side_by_side(threads: int) -> tuple[int, int]:
    """How many windows a processor encodes at once, and with how many of PyTorch's threads each."""
    each = -(-threads // MOST_SIDE_BY_SIDE)
    return threads // each, each


@contextlib.contextmanager
def _threads(device: Device) -> Iterator[tuple[ThreadPoolExecutor, int]]:
    """Threads, and how many, that read audio ahead of a GPU; on CPU they encode too.

    A thread that does whole windows waits for no other, where cores that share an operator wait for the slowest after
    each, and for the thread that reads.
    """
    threads = torch.get_num_threads()
    if device.name == "cpu":
        count, each = side_by_side(threads)
        pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(each,))
    else:
        count = max(1, min(MOST_RENDERERS, (os.cpu_count() or 2) - 1))
        pool = ThreadPoolExecutor(count)
    try:
        yield pool, count
    finally:
        pool.shutdown(cancel_futures=True)
        _give_back_memory()
        torch.set_num_threads(threads)  # what a thread sets holds for threads to come


def _give_back_memory() -> None:
    """Hand what threads freed back to the system: glibc keeps it for each thread, a tenth of a GB for two of tiny."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # musl has none
        trim(0)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What makes a window's states: see `keep`; `dtype` is what they are kept in."""

    render: Callable[[int], np.ndarray]
    end: Callable[[int], int]
    encoder: Any
    n_mels: int
    device: Device
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class _Made:
    """States of some windows in the computer's memory, once `arrived` (a CUDA event) has passed."""

    rows: torch.Tensor
    arrived: Any = None


def _write(
    path: Path, wanted: Sequence[range], todo: Sequence[range], made: Iterator[_Made], config: Any, dtype: str,
    progress: Callable[[int], None],
) -> None:  # fmt: skip
    """Shards of the windows in `todo`, whose states come in order and never two shards' together."""
    stored = np.dtype(np.int16 if dtype == "bfloat16" else np.float16)
    with ThreadPoolExecutor(1) as helper:
        for numbers in wanted:
            if numbers not in todo:
                progress(numbers.stop)
                continue
            shard, done = numbers.start // shards.SHARD_WINDOWS, numbers.start
            shape = (len(numbers), config.max_source_positions, config.d_model)
            with files.atomic_write(shards.shard_path(path, shard), "wb") as file:
                writer = shards.Writer(file, shape, stored, helper)
                while done < numbers.stop:
                    some = next(made)
                    if some.arrived is not None:
                        some.arrived.synchronize()
                    writer.append(some.rows.view(torch.int16).numpy().view(stored))
                    done += len(some.rows)
                    progress(done)
            shards.write_record(path, shard, len(numbers), sha256=writer.sha256)


def _on_cpu(work: _Work, todo: Sequence[range], pool: ThreadPoolExecutor, ahead: int) -> Generator[_Made]:
    """Each thread encodes windows of its own."""

    def make(number: int) -> _Made:
        features = windows.log_mel(windows.pad_window(work.render(number)), n_mels=work.n_mels)
        features = windows.fill(features[None], [work.end(number)])
        return _Made(rows=encode(work.encoder, features, work.device).to(work.dtype))

    yield from _ahead(pool, make, itertools.chain(*todo), ahead)


def _on_gpu(work: _Work, todo: Sequence[range], pool: ThreadPoolExecutor, ahead: int) -> Generator[_Made]:
    """Threads read audio, one gives the GPU its work, log-mels too, and none waits for the disk, which comes last."""
    card = torch.cuda.current_device()  # of this thread; another's would be the first

    def read(number: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(windows.pad_window(work.render(number))), work.end(number)

    def make(count: int) -> _Made:
        with torch.cuda.device(card):
            samples, ends = zip(*itertools.islice(rendered, count), strict=True)
            heard = torch.stack(samples).pin_memory().cuda(non_blocking=True)
            features = windows.fill(windows.log_mel(heard, n_mels=work.n_mels, device=work.device.name), ends)
            states = encode(work.encoder, features, work.device).to(work.dtype)
            rows = torch.empty(states.shape, dtype=work.dtype, pin_memory=True).copy_(states, non_blocking=True)
            return _Made(rows=rows, arrived=torch.cuda.current_stream().record_event())

    counts = (len(numbers[start : start + BATCH]) for numbers in todo for start in range(0, len(numbers), BATCH))
    with contextlib.closing(_ahead(pool, read, itertools.chain(*todo), ahead)) as rendered:
        with ThreadPoolExecutor(1) as giver:
            yield from _ahead(giver, make, counts, BATCHES_AHEAD)


def _ahead(pool: Executor, call: Callable[[int], T], arguments: Iterable[int], most: int) -> Generator[T]:
    """Results in order, some asked for ahead; once one fails, what has not begun is not begun."""
    waiting = deque[Future[T]]()
    try:
        for argument in arguments:
            waiting.append(pool.submit(call, argument))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def encode(encoder: Any, features: torch.Tensor, device: Device) -> torch.Tensor:
    """Run the encoder on log-mels (batch, n_mels, 3000); float states (batch, 1500, d_model) on the device.

    A batch that a GPU's memory does not hold is encoded in halves.
    """
    kind = getattr(encoder, "dtype", torch.float32)
    mixed = contextlib.nullcontext() if kind != torch.float32 else _as_computed(device).autocast()
    with torch.inference_mode(), mixed, attention.in_blocks(encoder, wanted=_wants_blocks(device)):
        made = memory.in_halves(lambda some: encoder(some.to(device.name, kind)).last_hidden_state, features)
        return made[0] if len(made) == 1 else torch.cat(made)


def computed_in(device: Device) -> torch.dtype:
    """The precision that states are computed in: on a GPU fp16, as Whisper's authors run it.

    It is closer to fp32 than bf16 is. What is kept is computed in it throughout, which moves half as much; what is
    heard once, before weights that may have changed, with fp32 sums between the products.
    """
    return torch.float16 if device.name == "cuda" and device.precision != torch.float32 else device.precision


def _as_computed(device: Device) -> Device:
    return dataclasses.replace(device, precision=computed_in(device))


def ready(encoder: Any, device: Device) -> Any:
    """The encoder where it will run, on a GPU a copy in the precision it computes in."""
    if device.name == "cuda":
        encoder = copy.deepcopy(encoder).to(device.name, computed_in(device))
    return encoder.eval().requires_grad_(False)  # else autocast keeps casts, in one place for all threads


def _wants_blocks(device: Device) -> bool:
    """Whether attention in blocks is the faster one: in bf16 on a processor without AMX."""
    return device.name == "cpu" and device.precision == torch.bfloat16 and not load.processor_has("amx_bf16")
