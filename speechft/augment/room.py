"""Rooms: a bank of impulse responses simulated once, and convolution that leaves every word where it was."""

import dataclasses
import json
import logging
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import soundfile

from speechft import audio, files
from speechft.audio import SAMPLE_RATE
from speechft.augment import draws, levels
from speechft.augment.recordings import files_in
from speechft.errors import InputError
from speechft.manifest import Reject

log = logging.getLogger(__name__)

FORMAT = 1  # of the bank's file and its simulation
# What numpy, zipfile and json raise over damaged bytes; an array alone, or nothing, where a file of several was.
DAMAGED = (
    OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
SIZE_M = ((3.0, 3.0, 2.4), (10.0, 8.0, 4.0))  # length, width, height: smallest and largest room
WALL_M = 0.5  # nobody speaks or listens nearer to a wall
HEIGHT_M = (1.0, 1.9)  # of mouths and microphones
DISTANCE_M = (0.4, 4.0)
HIGHEST_ORDER = 24  # reflections followed: up to 19,000 image sources, about 10 ms a room; 40 takes thrice as long
TRIES_A_ROOM = 30
BEFORE_DIRECT = 40  # samples kept before the direct sound: half of the simulator's fractional-delay filter
LONGEST_S = 1.5
TAIL_SHARE = 1e-6  # of the energy: what is cut off the end of a response, 60 dB down
SOUND_SUFFIXES = {".wav", ".flac"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bank:
    """Impulse responses at 16 kHz.

    Attributes:
        responses: one float32 array (samples,) a room, the direct sound 1.0 high.
        direct: index of the direct sound in each.
        rt60_s: measured reverberation time of each, NaN where the response does not decay by 35 dB.
        facts: what is known of each: size and distance in metres, or the file's name.
        rejects: files of a folder that cannot be used.
    """

    responses: Sequence[np.ndarray]
    direct: Sequence[int]
    rt60_s: Sequence[float]
    facts: Sequence[dict[str, Any]]
    rejects: Sequence[Reject] = ()

    def __len__(self) -> int:
        return len(self.responses)

    def draw(self, rng: np.random.Generator) -> int:
        """The index of a room."""
        return int(rng.integers(len(self)))

    def within(self, shortest_s: float, longest_s: float) -> "Bank":
        """The rooms whose measured reverberation time lies in a range.

        Raises:
            InputError: there is none.
        """
        kept = [i for i, rt60_s in enumerate(self.rt60_s) if shortest_s <= rt60_s <= longest_s]
        if not kept:
            raise InputError(
                f"room: none of {len(self)} impulse responses has an RT60 of {shortest_s} to {longest_s} s"
            )
        columns = (self.responses, self.direct, self.rt60_s, self.facts)
        responses, direct, rt60_s, facts = ([column[i] for i in kept] for column in columns)
        return Bank(responses=responses, direct=direct, rt60_s=rt60_s, facts=facts)  # type: ignore[arg-type]


def simulate(*, count: int, seed: str, rt60_s: tuple[float, float]) -> Bank:
    """Simulate shoebox rooms with pyroomacoustics' image sources (Allen and Berkley 1979).

    Size, places and absorption are drawn; a room is kept when its *measured* RT60 lies in the range. Walls
    absorb all frequencies alike, which real ones do not.

    Args:
        count: how many rooms.
        seed: label of the draws.
        rt60_s: shortest and longest reverberation time.

    Raises:
        InputError: no such rooms can be found.
    """
    rng = draws.generator(f"{seed}:rooms")
    found: list[tuple[np.ndarray, int, float, dict[str, Any]]] = []
    for _ in range(TRIES_A_ROOM * count):
        made = _simulate_one(rng, rt60_s)
        if made is not None and rt60_s[0] <= made[2] <= rt60_s[1]:
            found.append(made)
            if len(found) == count:
                break
    else:
        raise InputError(
            f"room.rt60_s: only {len(found)} of {count} rooms with an RT60 of {rt60_s[0]} to {rt60_s[1]} s "
            "could be simulated; widen the range"
        )
    responses, direct, rt60, facts = zip(*found, strict=True)
    return Bank(responses=responses, direct=direct, rt60_s=rt60, facts=facts)


def _simulate_one(
    rng: np.random.Generator, rt60_s: tuple[float, float]
) -> tuple[np.ndarray, int, float, dict[str, Any]] | None:
    import pyroomacoustics

    size = rng.uniform(*SIZE_M)
    mouth, microphone = (np.array([*rng.uniform(WALL_M, size[:2] - WALL_M), rng.uniform(*HEIGHT_M)]) for _ in range(2))
    target_s = rng.uniform(*rt60_s)
    distance_m = float(np.linalg.norm(mouth - microphone))
    if not DISTANCE_M[0] <= distance_m <= DISTANCE_M[1]:
        return None
    try:
        absorption, order = pyroomacoustics.inverse_sabine(target_s, size)
    except ValueError:  # so short a reverberation needs walls that absorb more than everything
        return None
    simulated = pyroomacoustics.ShoeBox(
        size,
        fs=SAMPLE_RATE,
        materials=pyroomacoustics.Material(absorption),
        max_order=min(order, HIGHEST_ORDER),
    )
    simulated.add_source(mouth)
    simulated.add_microphone(microphone)
    simulated.compute_rir()
    arrival = BEFORE_DIRECT + round(distance_m / simulated.c * SAMPLE_RATE)
    response, direct = trim(np.asarray(simulated.rir[0][0], dtype=np.float64), near=arrival)
    facts = {"size_m": [round(float(side), 2) for side in size], "distance_m": round(distance_m, 2)}
    return response, direct, measure_rt60(response[direct:]), facts


def trim(response: np.ndarray, *, near: int | None = None) -> tuple[np.ndarray, int]:
    """Cut what comes before the direct sound and after the last 60 dB, and make the direct sound 1.0 high.

    Args:
        response: impulse response, shape (samples,), not silent.
        near: index at which the direct sound is expected, None for the highest peak.

    Returns:
        float32 response, shape (fewer samples,), and the index of its direct sound.
    """
    if near is None:
        direct = int(np.argmax(np.abs(response)))
    else:
        window = np.abs(response[max(0, near - 2) : near + 3])
        direct = max(0, near - 2) + int(np.argmax(window))
    start = max(0, direct - BEFORE_DIRECT)
    remaining = np.cumsum(np.square(response[::-1]))[::-1]
    end = max(direct + 1, int(np.count_nonzero(remaining > TAIL_SHARE * remaining[0])))
    end = min(end, direct + round(LONGEST_S * SAMPLE_RATE))
    return (response[start:end] / response[direct]).astype(np.float32), direct - start


def measure_rt60(response: np.ndarray) -> float:
    """Reverberation time by Schroeder's backward integration (1965), from the 30 dB between -5 and -35 (T30).

    Args:
        response: impulse response from its direct sound to the end of its decay, shape (samples,); one that
            was cut off earlier measures too short.

    Returns:
        Seconds for a decay by 60 dB; NaN when the response does not decay by 35 dB or falls in one step.
    """
    energy = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    if not len(energy) or energy[0] <= 0:
        return math.nan
    decay_db = 10 * np.log10(np.maximum(energy / energy[0], 1e-12))
    start, end = int(np.argmax(decay_db <= -5)), int(np.argmax(decay_db <= -35))
    if decay_db[-1] > -35 or end - start < 2:
        return math.nan
    slope_db_a_sample = np.polyfit(np.arange(start, end), decay_db[start:end], 1)[0]
    return round(float(-60 / slope_db_a_sample / SAMPLE_RATE), 4)


def simulate_once(path: Path, *, count: int, seed: str, rt60_s: tuple[float, float]) -> Bank:
    """The bank kept at `path`; when none is there for the same arguments, a new one, then kept there.

    Raises:
        InputError: as for `simulate`, or the file cannot be written.
    """
    key = json.dumps({"format": FORMAT, "count": count, "seed": seed, "rt60_s": list(rt60_s)})
    kept = _read(path, key)
    if kept is not None:
        return kept
    bank = simulate(count=count, seed=seed, rt60_s=rt60_s)
    with files.atomic_write(path, "wb") as file:
        np.savez(
            file, key=np.array(key), samples=np.concatenate(bank.responses),
            lengths=[len(r) for r in bank.responses], direct=bank.direct, rt60_s=bank.rt60_s,
            facts=np.array(json.dumps(list(bank.facts))),
        )  # fmt: skip
    log.info("room: %d rooms simulated, RT60 %.2f to %.2f s", count, min(bank.rt60_s), max(bank.rt60_s))
    return bank


def _read(path: Path, key: str) -> Bank | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as kept:
            if str(kept["key"]) != key:
                return None
            responses = np.split(kept["samples"], np.cumsum(kept["lengths"])[:-1])
            return Bank(
                responses=responses, direct=kept["direct"].tolist(), rt60_s=kept["rt60_s"].tolist(),
                facts=json.loads(str(kept["facts"])),
            )  # fmt: skip
    except DAMAGED:  # simulated again, to the same
        return None


def load(folder: Path, *, leave_out: Callable[[Path], Reject | None] = lambda path: None) -> Bank:
    """Impulse responses from a folder's WAV and FLAC files; the highest peak is taken for the direct sound.

    Args:
        folder: searched whole.
        leave_out: why a file must not be used, if so.

    Raises:
        InputError: the folder is missing or holds none that can be used.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder to take impulse responses from")
    found: list[tuple[np.ndarray, int, float, dict[str, Any]]] = []
    paths, rejects = files_in(folder, SOUND_SUFFIXES)
    for path in paths:
        if reject := leave_out(path):
            rejects.append(reject)
            continue
        try:
            samples = _read_response(path)
        except audio.AudioError as error:
            rejects.append(Reject({"audio_filepath": str(path)}, error.reason, str(error), str(path)))
            continue
        response, direct = trim(samples.astype(np.float64))
        found.append((response, direct, measure_rt60(response[direct:]), {"file": path.relative_to(folder).as_posix()}))
    if not found:
        raise InputError(f"{folder}: holds no impulse response that can be used; put WAV or FLAC files there")
    responses, directs, rt60, facts = zip(*found, strict=True)
    return Bank(responses=responses, direct=directs, rt60_s=rt60, facts=facts, rejects=rejects)


def _read_response(path: Path) -> np.ndarray:
    """The first microphone of a response, whatever its level: several microphones' mean would be a comb filter.

    Raises:
        audio.AudioError: it cannot be read, is silent, or is not finite.
    """
    audio.probe(path)
    try:
        samples, rate = soundfile.read(path, dtype="float64", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise audio.AudioError("truncated", f"{path}: decoding stops half-way ({error.error_string})") from error
    peak = float(np.abs(samples[:, 0]).max(initial=0.0))
    if not peak:
        raise audio.AudioError("silent", f"{path}: is silent")
    if not math.isfinite(peak):
        raise audio.AudioError("bad values", f"{path}: holds values that are not finite")
    return audio.resample((samples[:, 0] / peak).astype(np.float32), rate=rate)


def convolve(samples: np.ndarray, response: np.ndarray, *, direct: int) -> np.ndarray:
    """Speak in a room, the direct sound in place and the level kept.

    Args:
        samples: float32, shape (samples,).
        response: impulse response, shape (any,).
        direct: index of its direct sound, which becomes time zero.

    Returns:
        float32, shape (samples,): what reverberates beyond the clip's end is cut off. RMS as before, lower
        only where the peak would pass 0.99.
    """
    energy = float(np.dot(samples, samples)) if len(samples) else 0.0
    if energy <= 0.0:
        return samples
    size = scipy.fft.next_fast_len(len(samples) + len(response) - 1, real=True)
    product = scipy.fft.rfft(samples, size) * scipy.fft.rfft(response.astype(np.float32, copy=False), size)
    heard = scipy.fft.irfft(product, size)[direct : direct + len(samples)]
    heard_energy = float(np.dot(heard, heard))
    if heard_energy <= 0.0:
        return samples
    scale = math.sqrt(energy / heard_energy)
    return heard * np.float32(levels.possible_gain(heard, scale))
