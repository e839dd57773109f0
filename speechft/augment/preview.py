"""The preview: a dozen rows before and after on one page, with waveform, spectrogram, player and the numbers used."""

from __future__ import annotations

import array
import base64
import hashlib
import heapq
import io
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import soundfile
from markupsafe import Markup

from speechft import audio, files
from speechft.audio import SAMPLE_RATE
from speechft.augment import levels
from speechft.manifest import Utterance

ROWS = 12
CONSIDERED = 2000
LONGEST_S = 12.0  # longer rows are shown only when there are no others: the page holds their sound
COLUMNS = 500  # of a waveform
FFT = 512  # 32 ms
HOP = SAMPLE_RATE // 100
RANGE_DB = 70.0
BANDS = 128  # pixels of a spectrogram's height; 62.5 Hz each
# Units of the numbers in a row's transform, by the end of their name.
UNITS = {"_db": "dB", "_s": "s", "_hz": "Hz", "_kbps": "kbit/s", "_m": "m", "_semitones": "semitones"}
ABBREVIATIONS = ("snr", "rt60")
UNTOLD = ("room", "start_s", "of", "replaced")  # numbers whose span tells nothing
LONG_TEXT = 300


def write(
    path: Path, *, clean: Iterable[Utterance], views: Iterable[Utterance], conditions: Iterable[Utterance]
) -> None:
    """Write the page: one file that holds its sound and pictures and needs nothing else.

    Rows are gone through once, and none but what is shown is kept: there may be millions.

    Args:
        path: where to.
        clean: rows that views and conditions were made from.
        views: augmented training rows, with `parent` and `transform`.
        conditions: fixed copies of test rows.
    """
    told = Summary()
    shown = [(row, "") for row in choose(told.counted(views), ROWS)]
    shown += [(row, row.condition or "") for row in choose(conditions, ROWS, by_condition=True)]
    wanted = {row.parent for row, _ in shown}
    parents = {row.id: row for row in clean if row.id in wanted}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("speechft.augment", "templates"), autoescape=True,
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    page = environment.get_template("preview.html").render(
        rows=[_row(row, parents[row.parent or ""], condition) for row, condition in shown],
        table=told.rows(), views=told.views, shown=len(shown),
    )  # fmt: skip
    with files.atomic_write(path) as file:
        file.write(page)


def choose(rows: Iterable[Utterance], count: int, *, by_condition: bool = False) -> list[Utterance]:
    """Rows that together show as many transforms as they can, of different parents; the same every time.

    With `by_condition` one of each condition. Of very many rows `CONSIDERED` are looked at, drawn by their ids; short
    ones first.
    """

    def rank(row: Utterance) -> tuple[bool, bytes]:
        return (row.duration or 0.0) > LONGEST_S, hashlib.sha256(f"preview:{row.id}".encode()).digest()

    waiting = heapq.nsmallest(CONSIDERED, rows, key=rank)
    waiting = [row for row in waiting if (row.duration or 0.0) <= LONGEST_S] or waiting
    seen: Counter[str] = Counter()
    parents: set[str | None] = set()
    chosen: list[Utterance] = []
    while waiting and len(chosen) < count:
        # What was seen least counts most; a row of a parent already shown only when there is no other.
        best = max(
            waiting,
            key=lambda row: (
                not by_condition or not seen[row.condition or ""],
                row.parent not in parents,
                sum(1 / (1 + seen[what]) ** 2 for what in _whats(row)),
            ),
        )
        if by_condition and seen[best.condition or ""]:
            break
        waiting.remove(best)
        chosen.append(best)
        parents.add(best.parent)
        seen.update({*_whats(best), best.condition or ""})
    return chosen


def _whats(row: Utterance) -> set[str]:
    return {f"{step['name']} {step.get('kind') or step.get('codec') or ''}".strip() for step in row.transform or []}


class Summary:
    """For each transform: in how many views it happened, how often it was skipped, and the span of its numbers."""

    def __init__(self) -> None:
        self.views = 0
        self._happened: Counter[str] = Counter()
        self._skipped: Counter[str] = Counter()
        self._numbers: dict[str, dict[str, array.array[float]]] = defaultdict(
            lambda: defaultdict(lambda: array.array("d"))
        )

    def counted(self, views: Iterable[Utterance]) -> Iterator[Utterance]:
        """The same rows, counted as they pass."""
        for row in views:
            self.views += 1
            for step in row.transform or []:
                if "skipped" in step:
                    self._skipped[step["name"]] += 1
                    continue
                self._happened[step["name"]] += 1
                for key, value in step.items():
                    if isinstance(value, int | float) and not isinstance(value, bool):
                        self._numbers[step["name"]][key].append(value)
            yield row

    def rows(self) -> list[dict[str, str]]:
        """`name`, `share`, `skipped` and `spans` of each transform, in words."""
        found = []
        for name in dict.fromkeys([*self._happened, *self._skipped]):
            spans = [
                f"{_words(key)} {_number(key, min(held))} to {_number(key, max(held))} "
                f"(median {_number(key, statistics.median(held))})"
                for key, held in self._numbers[name].items()
                if key not in UNTOLD and min(held) < max(held)
            ]
            share = f"{self._happened[name] / self.views:.0%}".replace("%", " %")
            skipped = str(self._skipped[name] or "")
            found.append({"name": name, "share": share, "skipped": skipped, "spans": "; ".join(spans)})
        return found


def tell(step: Mapping[str, Any]) -> str:
    """One step of a row's transform in words: "kind babble, SNR 7.2 dB, measured SNR 7.2 dB"."""
    if "skipped" in step:
        return f"left out: {step['skipped']}"
    parts = []
    for key, value in step.items():
        if key == "name" or value is None or value is False:
            continue
        what = "" if _words(key) == step["name"] else _words(key)
        if value is True:
            parts.append(what)
            continue
        if isinstance(value, list):
            said = ", ".join(_number(key, entry) if isinstance(entry, int | float) else str(entry) for entry in value)
        else:
            said = _number(key, value) if isinstance(value, int | float) else str(value)
        parts.append(f"{what} {said if len(said) <= LONG_TEXT else said[:LONG_TEXT] + '…'}".strip())
    return ", ".join(parts)


def _words(key: str) -> str:
    key = {"kbps": "rate_kbps", "semitones": "pitch_semitones"}.get(key, key)
    end = next((end for end in UNITS if key.endswith(end)), "")
    words = key.removesuffix(end).split("_")
    return " ".join(word.upper() if word in ABBREVIATIONS else word for word in words)


def _number(key: str, value: float) -> str:
    unit = next((unit for end, unit in UNITS.items() if f"_{key}".endswith(end)), "")
    return f"{value:.3g} {unit}".strip()


def _row(row: Utterance, parent: Utterance, condition: str) -> dict[str, Any]:
    sounds = [_read(parent), _read(row)]
    longest = max(map(len, sounds))
    return {
        "id": row.id,
        "condition": condition,
        "text": row.text or "(silence)",
        "speaker": parent.speaker or "unknown speaker",
        "steps": [(step["name"], tell(step)) for step in row.transform or []],
        "sides": [
            _side(name, samples, longest) for name, samples in zip(("before", "after"), sounds, strict=True)
        ],
    }  # fmt: skip


def _read(row: Utterance) -> np.ndarray:
    assert row.audio_filepath is not None
    return audio.read(row.audio_filepath, offset_s=row.offset, duration_s=row.duration)


def _side(name: str, samples: np.ndarray, longest: int) -> dict[str, Any]:
    peak = levels.peak(samples)
    level_db = audio.active_level_db(samples)
    return {
        "name": name,
        "width": round(100 * len(samples) / longest, 2),
        "facts": f"{len(samples) / SAMPLE_RATE:.2f} s, speech at {level_db:.0f} dB, peak {peak:.2f}",
        "wave": waveform(samples),
        "picture": _uri("image/png", spectrogram(samples)),
        "sound": _uri("audio/flac", _flac(samples)),
    }


def waveform(samples: np.ndarray) -> Markup:
    """Path of the samples' range by column, in a box of `COLUMNS` by 2, full scale."""
    columns = np.array_split(samples, min(COLUMNS, max(1, len(samples))))
    x = np.linspace(0, COLUMNS, len(columns))
    tops = [f"{at:.1f},{1 - max(float(c.max(initial=0)), 0.005):.3f}" for at, c in zip(x, columns, strict=True)]
    bottoms = [f"{at:.1f},{1 - min(float(c.min(initial=0)), -0.005):.3f}" for at, c in zip(x, columns, strict=True)]
    return Markup("M" + " L".join([*tops, *reversed(bottoms)]) + "Z")


def spectrogram(samples: np.ndarray) -> bytes:
    """A PNG of the power by time and frequency (0 to 8 kHz upwards), 70 dB below the loudest."""
    import matplotlib.image

    padded = np.pad(samples, (FFT // 2, FFT // 2 + max(0, FFT - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP] * np.hanning(FFT).astype(np.float32)
    power = np.abs(np.fft.rfft(frames)[:, 1:]) ** 2
    bands = power.reshape(len(power), BANDS, -1).mean(axis=2)
    level_db = 10 * np.log10(np.maximum(bands, 1e-12))
    floor_db = max(float(level_db.max()), -60.0) - RANGE_DB
    file = io.BytesIO()
    matplotlib.image.imsave(
        file, np.clip((level_db.T - floor_db) / RANGE_DB, 0, 1), cmap="magma", vmin=0, vmax=1, origin="lower",
        format="png",
    )  # fmt: skip
    return file.getvalue()


def _flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
