"""What `augment_speed.py` compares: each transform by our settings, and how `audiomentations` does the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from speechft.augment.settings import DEFAULT

ROOMS = 50  # in the bank of both sides, which keep them in memory
TARGET = 100.0  # times real time on a core: noise, room from the bank and telephone band together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One transform: our settings, and how the other side does the same (None: it does not)."""

    name: str
    ours: Mapping[str, Any]
    theirs: Callable[[Any, Path], Any] | None = None
    note: str = ""


def band(a: Any) -> Any:
    """300 to 3400 Hz: centre and width as it wants them; no delay, 60 dB an octave (12 dB a pass, rounded up)."""
    centre = (300 + 3400) / 2
    width = (3400 - 300) / centre
    return a.BandPassFilter(centre, centre, width, width, min_rolloff=60, max_rolloff=60, zero_phase=True, p=1.0)


CASES = [
    Case(
        name="gain", ours={"gain": {"db": [-10, 6]}}, theirs=lambda a, _: a.Gain(-10, 6, p=1.0),
        note="ours keeps from clipping, and draws by row",
    ),
    Case(
        name="clipping", ours={"clip": {}}, theirs=lambda a, _: a.ClippingDistortion(0, 20, p=1.0),
        note="theirs by percentile",
    ),
    Case(
        name="white noise at an SNR", ours={"noise": {"kinds": "white"}},
        theirs=lambda a, _: a.AddGaussianSNR(5, 25, p=1.0), note="ours also measures the SNR over active speech",
    ),
    Case(
        name="pink noise at an SNR", ours={"noise": {"kinds": "pink"}},
        theirs=lambda a, _: a.AddColorNoise(5, 25, min_f_decay=-3.01, max_f_decay=-3.01, p=1.0),
    ),
    Case(
        name="brown noise at an SNR", ours={"noise": {"kinds": "brown"}},
        theirs=lambda a, _: a.AddColorNoise(5, 25, min_f_decay=-6.02, max_f_decay=-6.02, p=1.0),
    ),
    Case(name="hum at an SNR", ours={"noise": {"kinds": "hum"}}),
    Case(
        name="recorded noise at an SNR", ours={"noise": {"kinds": "recorded", "from": "noise"}},
        theirs=lambda a, folder: a.AddBackgroundNoise(folder / "noise", 5, 25, p=1.0),
        note="24 files of a minute, more than is kept",
    ),
    Case(
        name="room from a bank", ours={"room": {}},
        theirs=lambda a, folder: a.ApplyImpulseResponse(folder / "rooms", p=1.0, lru_cache_size=ROOMS),
        note="the same responses",
    ),
    Case(
        name="telephone band", ours={"telephone": {"mu_law": False}}, theirs=lambda a, _: band(a),
        note="300 to 3400 Hz, no delay",
    ),
    Case(name="telephone band and mu-law", ours={"telephone": {}}),
    Case(
        name="band limits", ours={"band": {"low_hz": 150.0, "high_hz": 5500.0}},
        theirs=lambda a, _: a.BandPassFilter(
            2825, 2825, 5350 / 2825, 5350 / 2825, min_rolloff=60, max_rolloff=60, zero_phase=True, p=1.0
        ), note="150 to 5500 Hz, no delay",
    ),
    Case(name="MP3", ours={"codec": {"formats": "mp3", "kbps": [16, 48]}},
         theirs=lambda a, _: a.Mp3Compression(16, 48, backend="fast-mp3-augment", p=1.0),
         note="both by LAME at its quickest"),
    Case(name="Opus", ours={"codec": {"formats": "opus", "kbps": [12, 48]}}),
    Case(name="Vorbis", ours={"codec": {"formats": "vorbis", "kbps": [36, 64]}}),
    Case(
        name="tempo", ours={"tempo": {}},
        theirs=lambda a, _: a.TimeStretch(0.85, 1.2, leave_length_unchanged=False, p=1.0),
        note="theirs by signalsmith-stretch, in C++",
    ),
    Case(
        name="pitch", ours={"pitch": {}}, theirs=lambda a, _: a.PitchShift(-3, 3, p=1.0),
        note="ours keeps the formants, theirs moves them",
    ),
    Case(name="speed", ours={"speed": {}}, theirs=lambda a, _: a.Resample(14545, 17778, p=1.0),
         note="theirs resamples to another rate, the same work"),
    Case(name="formants", ours={"formants": {}}),
    Case(name="contour", ours={"contour": {}}),
    Case(name="rhythm", ours={"rhythm": {}}),
    Case(name="babble", ours={"noise": {"kinds": "babble"}}),
    Case(name="said again", ours={"say": {}}, note="audio of the recording over the time to speak"),
    Case(
        name="noise, room, telephone band",
        ours={"noise": {"kinds": "pink"}, "room": {}, "telephone": {"mu_law": False}},
        theirs=lambda a, folder: a.Compose([
            a.ApplyImpulseResponse(folder / "rooms", p=1.0, lru_cache_size=ROOMS),
            a.AddColorNoise(5, 25, min_f_decay=-3.01, max_f_decay=-3.01, p=1.0), band(a),
        ]), note=f"together; the aim is {TARGET:.0f}",
    ),
    Case(name="default chain", ours=DEFAULT, note="with its probabilities"),
]  # fmt: skip
