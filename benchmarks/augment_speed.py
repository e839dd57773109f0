"""How fast each transform is, beside `audiomentations` doing the same to the same clips, and what memory views take.

    OMP_NUM_THREADS=1 python benchmarks/augment_speed.py

Writes docs/benchmarks/augment_speed.md. Both sides run in one process and take turns clip by clip, so that other load
slows both alike; speed is audio over processor time. `pip install -c constraints.txt -e '.[bench]'` gives the other
side, without which only ours is measured; `psutil` comes with accelerate. Resumable: what is measured is kept in
runs/augment-speed/ by clips and repeats; remove that to measure again.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import multiprocessing
import os
import platform
import statistics
import tempfile
import threading
import time
import timeit
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil
from augment_cases import CASES, ROOMS, Case

from speechft import audio, files, manifest, provenance
from speechft.audio import SAMPLE_RATE
from speechft.augment import draws, levels, noise, plan, room, settings
from speechft.augment.recordings import CACHE_BYTES
from speechft.augment.settings import DEFAULT
from speechft.augment.sources import MOST_TALKS, Materials, Recording
from speechft.augment.views import make_views
from speechft.manifest import Utterance

OUT = Path("docs/benchmarks/augment_speed.md")
KEPT = Path("runs/augment-speed")
VERSION = "0.43.1"  # of audiomentations
MEMORY_CHAIN: Mapping[str, Any] = {"noise": {"p": 1, "kinds": ["babble", "pink"]}, "gain": {"p": 1}}
MEMORY_CLIP_S = 1.0
SAME = 0.95  # of the other side's speed is as fast: turns differ by as much


def collect(folder: Path, clips: list[tuple[Utterance, np.ndarray]]) -> Materials:
    """Rooms, recorded noise and talkers for both sides, as files where the other side wants files."""
    bank = room.simulate(count=ROOMS, seed="speed", rt60_s=(0.15, 0.8))
    for number, response in enumerate(bank.responses):
        audio.write(folder / "rooms" / f"{number:03d}.wav", response / np.abs(response).max() * 0.99)
    for number in range(24):
        samples, _ = noise.generate("brown", 60 * SAMPLE_RATE, np.random.default_rng(number))
        audio.write(folder / "noise" / f"{number}.wav", 0.05 * samples)
    recordings = [Recording(path=path, duration_s=60.0, id=path.name) for path in sorted((folder / "noise").iterdir())]
    talkers: dict[str, list[Recording]] = {}
    for row, _ in clips:
        assert row.audio_filepath is not None
        talkers.setdefault(row.speaker or "", []).append(
            Recording(path=row.audio_filepath, offset_s=row.offset, duration_s=row.duration, id=row.id)
        )
    return Materials(rooms=bank, recordings=recordings, talkers=talkers, talkers_named=True)


def measure(
    case: Case, clips: list[tuple[Utterance, np.ndarray]], materials: Materials, folder: Path, other: Any, repeats: int
) -> tuple[float, float | None]:
    """Seconds of audio per second of processor, ours and theirs: the median over repeats of all clips."""
    whole = case.ours if case.ours is DEFAULT else {name: {"p": 1.0, **table} for name, table in case.ours.items()}
    tables = settings.check(whole)
    theirs = case.theirs(other, folder) if case.theirs and other else None

    def do_ours(row: Utterance, samples: np.ndarray, view: int) -> None:
        plan.apply(
            samples, utterance_id=row.id, view=view, settings=tables, seed=1, materials=materials,
            speaker=row.speaker, text=row.text,
        )  # fmt: skip

    ours_s, theirs_s = [], []
    for repeat in range(repeats + 1):  # the first warms caches and imports on both sides and is not counted
        spent = {"ours": 0.0, "theirs": 0.0}
        for row, samples in clips:
            started = time.process_time()
            do_ours(row, samples, repeat + 1)
            spent["ours"] += time.process_time() - started
            if theirs is not None:
                started = time.process_time()
                theirs(samples, sample_rate=SAMPLE_RATE)
                spent["theirs"] += time.process_time() - started
        if repeat:
            ours_s.append(spent["ours"])
            theirs_s.append(spent["theirs"])
    audio_s = sum(len(samples) for _, samples in clips) / SAMPLE_RATE
    both = (audio_s / statistics.median(ours_s), audio_s / statistics.median(theirs_s) if theirs is not None else None)
    print(f"{case.name}: {both[0]:,.0f}" + (f", theirs {both[1]:,.0f}" if both[1] else ""), flush=True)
    return both


def parts_of_gain(clips: list[tuple[Utterance, np.ndarray]], other: Any) -> dict[str, float]:
    """Microseconds of processor a clip, best of turns: gain, what it consists of, and theirs."""
    tables = settings.check({"gain": {"p": 1.0, "db": [-10, 6]}})
    row, samples = clips[0]
    nothing = Materials()
    parts: dict[str, Callable[[], object]] = {
        "in all": lambda: plan.apply(
            samples, utterance_id=row.id, view=1, settings=tables, seed=1, materials=nothing, speaker=row.speaker
        ),
        "seeding a generator by the row": lambda: draws.generator(f"1:{row.id}:1:gain"),
        "looking for the peak, before and after": lambda: [levels.peak(samples) for _ in range(2)],
        "the product": lambda: samples * np.float32(0.5),
    }
    if other:
        theirs = other.Gain(-10, 6, p=1.0)
        parts["audiomentations, in all"] = lambda: theirs(samples, sample_rate=SAMPLE_RATE)
    found = {
        name: 1e6 * min(timeit.repeat(do, timer=time.process_time, number=2000, repeat=5)) / 2000
        for name, do in parts.items()
    }
    print(", ".join(f"{name} {value:.0f} us" for name, value in found.items()), flush=True)
    return found


def peak_memory_mb(rows: list[Utterance], count: int, folder: Path) -> tuple[float, float, float]:
    """Views of `count` rows made in a process of their own: peak MB of it, of its largest worker, and seconds."""
    queue: Any = multiprocessing.get_context("spawn").SimpleQueue()
    process = multiprocessing.get_context("spawn").Process(target=_make_rows, args=(rows, count, folder, queue))
    process.start()
    found: tuple[float, float, float] = queue.get()
    process.join()
    print(f"{count:,} rows: {found[0]:.0f} MB, worker {found[1]:.0f} MB, {found[2]:.0f} s", flush=True)
    return found


def _make_rows(rows: list[Utterance], count: int, folder: Path, queue: Any) -> None:
    # So many rows of the few clips at hand, each cut short: memory depends on rows, not on what is said.
    manifest.write(
        folder / "clean.jsonl",
        (
            dataclasses.replace(rows[number % len(rows)], id=f"m{number}", duration=MEMORY_CLIP_S)
            for number in range(count)
        ),
    )
    clean = manifest.Rows(folder / "clean.jsonl")
    started = time.monotonic()
    with Watch() as watch:
        made = make_views(clean, count=1, settings=MEMORY_CHAIN, seed=1, out=folder, bank=folder / "rooms.npz")
        manifest.write(folder / "train.jsonl", made.rows)
    # VmHWM, as ru_maxrss still holds what the parent had when it started this process.
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    queue.put((int(own.split()[1]) / 1024, watch.peak_mb, time.monotonic() - started))


class Watch:
    """What the workers under this process take, looked at ten times a second: they are a fork server's children, so
    the operating system does not add them up here.

    `seconds` is processor time of all of them, `peak_mb` the largest one's resident memory.
    """

    def __init__(self) -> None:
        self.peak_mb = 0.0
        self._spent: dict[int, float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    @property
    def seconds(self) -> float:
        """Processor seconds, of the last look at each worker."""
        return sum(self._spent.values())

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for worker in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                    times = worker.cpu_times()
                    self._spent[worker.pid] = times.user + times.system
                    self.peak_mb = max(self.peak_mb, worker.memory_info().rss / 2**20)


def cost_of_a_view(clips: list[tuple[Utterance, np.ndarray]], folder: Path) -> tuple[float, float]:
    """The default chain through `make_views`, with reading and writing: processor seconds and GB an hour of audio.

    From five views less one, so that starting the workers and simulating rooms, which any number of rows needs once,
    is not counted.
    """
    rows = [row for row, _ in clips]
    spent_s, hours, written = {}, {}, 0
    for count in (1, 5):
        out = folder / str(count)
        with Watch() as watch:
            made = make_views(rows, count=count, settings=DEFAULT, seed=1, out=out, bank=out / "rooms.npz", processes=1)
            views = list(made.rows)[len(rows) :]
        spent_s[count] = watch.seconds
        hours[count] = sum(row.duration or 0.0 for row in views) / 3600
        written = sum(row.audio_filepath.stat().st_size for row in views if row.audio_filepath)
    return (spent_s[5] - spent_s[1]) / (hours[5] - hours[1]), written / 1e9 / hours[5]


@contextlib.contextmanager
def keeping(path: Path, kept: dict[str, Any]) -> Iterator[None]:
    """Writes what was measured inside, and how long it took."""
    started = time.monotonic()
    yield
    kept["took_s"] += time.monotonic() - started
    files.write_json(path, kept)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="speechft-speed-") as name:
        yield Path(name)


def other_side() -> Any:
    """audiomentations, or None with a message."""
    if importlib.util.find_spec("audiomentations") is None:
        print("audiomentations is not installed: only ours is measured (pip install -e '.[bench]')")
        return None
    import audiomentations

    if audiomentations.__version__ != VERSION:
        print(f"audiomentations {audiomentations.__version__} is installed, the table was made with {VERSION}")
    return audiomentations


def page(
    speeds: Mapping[str, tuple[float, float | None]], memory: Mapping[str, tuple[float, float, float]],
    cost: tuple[float, float], gain: Mapping[str, float], *, clips: int, minutes: float, other: str | None,
    command: str, took_s: float,
) -> str:  # fmt: skip
    """The tables, in Markdown."""
    versions, grown = provenance.versions(), [found[0] for found in memory.values()]
    named = ", ".join(
        f"{name} {versions[name]}" for name in ("numpy", "scipy", "soundfile", "pyworld") if name in versions
    )
    lines = [
        "# How fast augmentation is",
        "",
        f"    {command}",
        "",
        f"{clips} clips, {minutes:.1f} minutes of the demo's training speech, in memory; hours of audio per hour of a "
        f"core (processor time, median of repeats, both sides in one process taking turns). {processor()}, "
        f"Python {platform.python_version()}, {named}, "
        f"{'audiomentations ' + other if other else 'audiomentations was not installed'}.",
        "",
        "| transform | speechft | audiomentations | ratio | |",
        "| :-- | --: | --: | --: | :-- |",
    ]
    for case in CASES:
        ours, theirs = speeds[case.name]
        other_speed, ratio = (f"{theirs:,.0f}", f"{ours / theirs:.1f}") if theirs else ("-", "-")
        lines.append(f"| {case.name} | {ours:,.0f} | {other_speed} | {ratio} | {case.note} |")
    slower = [case.name for case in CASES if (pair := speeds[case.name])[1] and pair[0] < SAME * pair[1]]
    lines += [
        "",
        f"Asked was to be at least as fast on each that both have; slower: {', '.join(slower) or 'none'}.",
        "",
        f"A view by the default chain, with reading and writing: {cost[0]:.0f} s of a core and {cost[1]:.3f} GB for an "
        "hour of speech.",
        "",
        f"Gain on the first clip, microseconds: {', '.join(f'{name} {value:.0f}' for name, value in gain.items())}.",
        "",
        f"## Memory of `augment` (babble, pink noise and gain; clips of {MEMORY_CLIP_S:g} s)",
        "",
        "| rows | main process, MB | largest worker, MB | seconds |",
        "| --: | --: | --: | --: |",
        *(f"| {int(n):,} | {found[0]:.0f} | {found[1]:.0f} | {found[2]:.0f} |" for n, found in memory.items()),
        "",
        f"Asked was that it stays flat; in the main process it grew by {max(grown) - grown[0]:.0f} MB. In a worker "
        f"babble and noise keep at most {CACHE_BYTES / 2**20:.0f} MB of decoded sound, and babble is mixed from at "
        f"most {MOST_TALKS:,} recordings."
        if grown
        else "Memory was not measured.",
        "",
        f"Measuring took {took_s / 60:.0f} minutes, beside making rooms and noise for both sides.",
        "",
    ]
    return "\n".join(lines)


def processor() -> str:
    """The processor's name and the cores this process may use."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.exists() else []  # fmt: skip
    return f"{names[0] if names else platform.processor() or 'processor unknown'}, {os.cpu_count()} cores"


def main() -> int:
    """Measure, print as it goes, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifest", type=Path, default=Path("manifests/clinical/train.jsonl"))
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[100, 1000, 10_000, 40_000])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    rows = manifest.read(options.manifest)[: options.clips]
    clips = [
        (row, audio.read(row.audio_filepath, offset_s=row.offset, duration_s=row.duration))
        for row in rows
        if row.audio_filepath
    ]
    minutes = sum(len(samples) for _, samples in clips) / SAMPLE_RATE / 60
    other = other_side()
    name = f"{options.clips}-clips-{options.repeats}-repeats.json"
    kept: dict[str, Any] = {"speeds": {}, "memory": {}, "cost": None, "gain": None, "took_s": 0.0}
    if (KEPT / name).exists():
        kept |= files.read_json(KEPT / name)
    with scratch() as folder:
        materials = collect(folder, clips)
        for case in CASES:
            if case.name not in kept["speeds"]:
                with keeping(KEPT / name, kept):
                    kept["speeds"][case.name] = measure(case, clips, materials, folder, other, options.repeats)
        if kept["cost"] is None:
            with keeping(KEPT / name, kept):
                kept["cost"] = cost_of_a_view(clips, folder / "views")
    if kept["gain"] is None:
        with keeping(KEPT / name, kept):
            kept["gain"] = parts_of_gain(clips, other)
    for count in options.memory_rows:
        if str(count) not in kept["memory"]:
            with scratch() as folder, keeping(KEPT / name, kept):
                kept["memory"][str(count)] = peak_memory_mb(rows, count, folder)
    command = (
        f"OMP_NUM_THREADS=1 python benchmarks/augment_speed.py --clips {options.clips} --repeats {options.repeats}"
    )
    text = page(
        kept["speeds"], kept["memory"], kept["cost"], kept["gain"], clips=len(clips), minutes=minutes,
        other=other.__version__ if other else None, command=command, took_s=kept["took_s"],
    )  # fmt: skip
    with files.atomic_write(options.out) as file:
        file.write(text)
    print(options.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
