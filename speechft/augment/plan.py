"""The plan: which transforms a view gets, with which numbers, drawn from seed, row id and view alone."""

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechft import audio
from speechft.augment import accent, channel, draws, levels, noise, recordings, room, say, sources
from speechft.augment import settings as tables_of
from speechft.augment.recordings import Recording
from speechft.augment.settings import DEFAULT, Noise, Transforms
from speechft.augment.sources import Materials
from speechft.errors import InputError
from speechft.manifest import Utterance

log = logging.getLogger(__name__)

NOISE_TRIES = 5  # recordings drawn until one can be decoded and is not silent
FULL_SCALE = 1.0
LONGEST_S = say.LONGEST_S
TOO_LONG = f"longer than {LONGEST_S:.0f} s"
NO_VOICE = f"silent, or shorter than {accent.SHORTEST_S:g} s"
WARPS = ("pitch", "formants", "contour", "rhythm")  # one pass does all of them

Step = dict[str, Any]  # one entry of a row's `transform`: {"name": "noise", "kind": "pink", "snr_db": 12.1, ...}


def materials(
    rows: Sequence[Utterance],
    *,
    settings: Mapping[str, Any],
    seed: int,
    bank: Path,
    condition: str | None = None,
    unheard: Sequence[Utterance] = (),
    training: Mapping[str, Any] | None = None,
    disturbed: Sequence[Utterance] = (),
) -> Materials:
    """Collect what a plan draws from: other speakers, noise files, rooms.

    Args:
        rows: the rows babble is mixed from where no `babble_from` is set: training rows for views; for a
            condition test rows, or none.
        settings: the tables of the plan, {} for `settings.DEFAULT`, or of the condition.
        seed: of the simulated rooms.
        bank: where simulated rooms are kept, an `.npz` file; conditions keep theirs beside it.
        condition: name of the test condition; without it, no rows also means a condition.
        unheard: rows whose sound no source may bring: of dev and test rows for views, of training rows for conditions,
            where their speakers are left out too.
        training: for a condition, the tables of training's views, whose sources it must not share.
        disturbed: the test rows of a condition; for views, the rows themselves are taken.

    Raises:
        InputError: settings are wrong, or a source is missing or unusable.
    """
    held_out = condition is not None or not rows
    checked = (
        tables_of.check_condition(settings, name=condition or "?") if held_out else tables_of.check(settings or DEFAULT)
    )
    return sources.materials(
        rows, settings=checked, seed=seed, bank=bank, held_out=held_out, unheard=unheard,
        training=None if training is None else tables_of.check(training or DEFAULT), disturbed=disturbed or rows,
    )  # fmt: skip


def apply(
    samples: np.ndarray,
    *,
    utterance_id: str,
    view: int,
    settings: Mapping[str, Any] | Transforms,
    seed: int,
    materials: Materials,
    speaker: str | None = None,
    text: str | None = None,
    language: str | None = "en",
) -> tuple[np.ndarray, list[Step]]:
    """Make one view of a row: voice, then room, noise, channel and level.

    Args:
        samples: float32 in [-1, 1] at 16 kHz, shape (samples,).
        utterance_id: the clean row's id.
        view: 0 gives the clean row back; each other number gives another view.
        settings: {transform: {"p": probability, ...}}, see `settings.Transforms`; {} for `settings.DEFAULT`. Already
            checked ones save checking again, 0.1 ms.
        seed: the plan's.
        materials: from `materials`, made with the same settings and seed.
        speaker: who speaks in the row, so that babble is somebody else's.
        text: what was said, needed to say it again.
        language: of the text; None if it is a translation.

    Returns:
        float32 samples, finite and within [-1, 1], as many as before unless it was said again or speed or tempo
        changed (never to more than 30 s), and the
        steps done, in order, each with its name and numbers.

    Raises:
        InputError: the settings are wrong or the materials lack what they need.
    """
    if view == 0:
        return samples, []
    label = f"{seed}:{utterance_id}:{view}"
    row = _Row(id=utterance_id, speaker=speaker, text=text, language=language, label=label, must=False)
    tables = settings if isinstance(settings, Transforms) else tables_of.check(settings or DEFAULT)
    return _run(samples, row=row, tables=tables, materials=materials)


def condition(
    samples: np.ndarray,
    *,
    name: str,
    settings: Mapping[str, Any],
    utterance_id: str,
    seed: int,
    materials: Materials,
    speaker: str | None = None,
    text: str | None = None,
    language: str | None = "en",
) -> tuple[np.ndarray, list[Step]]:
    """Make the fixed test copy of a row under a named condition.

    As `apply`, but every transform named happens unless its `p` says otherwise, and what cannot be done
    (babble without anybody else's speech, the pitch of silence) is an error: a copy without its noise would pass for a
    noisy one.

    Raises:
        InputError: the settings are wrong, the materials lack what they need, or a transform cannot be done here.
    """
    label = f"{seed}:{utterance_id}:condition:{name}"
    row = _Row(id=utterance_id, speaker=speaker, text=text, language=language, label=label, must=True)
    made, steps = _run(samples, row=row, tables=tables_of.check_condition(settings, name=name), materials=materials)
    if left_out := next((step for step in steps if "skipped" in step), None):
        raise InputError(f"{utterance_id}: {left_out['name']}: {left_out['skipped']}")
    return made, steps


@dataclass(frozen=True, kw_only=True)
class _Row:
    """Whose view is made; `must`: what cannot be done is an error."""

    id: str
    speaker: str | None
    text: str | None
    language: str | None
    label: str
    must: bool


def _run(samples: np.ndarray, *, row: _Row, tables: Transforms, materials: Materials) -> tuple[np.ndarray, list[Step]]:
    if not len(samples):
        return samples, []
    drawn: dict[str, np.random.Generator] = {}
    for name in Transforms.model_fields:
        table = getattr(tables, name)
        if table is None:
            continue
        # A generator for each transform: changing one transform's settings leaves the others' numbers alone.
        rng = draws.generator(f"{row.label}:{name}")
        if rng.random() < table.p:
            drawn[name] = rng
    samples, steps = _say(samples, drawn, tables, row)
    if steps and "speaker" in steps[0]:  # who speaks now
        row = dataclasses.replace(row, speaker=steps[0]["speaker"])
    samples, more = _voice(samples, drawn, tables)
    steps += more
    if "room" in drawn:
        samples, step = _room(samples, drawn["room"], materials)
        steps.append(step)
    if "noise" in drawn:
        assert tables.noise is not None
        samples, step = _noise(samples, drawn["noise"], tables.noise, materials, row)
        steps.append(step)
    samples, more = _channel(samples, drawn, tables)
    steps += more
    peak = levels.peak(samples)
    if peak > FULL_SCALE:
        samples = samples * np.float32(levels.PEAK_LIMIT / peak)
        steps.append({"name": "limit", "gain_db": round(20 * math.log10(levels.PEAK_LIMIT / peak), 4)})
    return np.ascontiguousarray(samples, dtype=np.float32), steps


def _say(
    samples: np.ndarray, drawn: Mapping[str, np.random.Generator], tables: Transforms, row: _Row
) -> tuple[np.ndarray, list[Step]]:
    """The text by another voice, as loud as the recording; what cannot be said is recorded and left as it is."""
    if "say" not in drawn or tables.say is None:
        return samples, []
    level_db = audio.active_level_db(samples)
    try:
        said, facts = say.say(
            row.text or "", tables.say, drawn["say"], held_out=row.must, language=row.language,
            level_db=level_db if level_db > noise.SILENCE_DB else levels.SPEECH_DB,
        )  # fmt: skip
    except InputError as error:
        if row.must:
            raise InputError(f"{row.id}: cannot be said again: {error}") from error
        return samples, [{"name": "say", "skipped": str(error)}]
    return said, [{"name": "say", **facts}]


def _too_long(samples: np.ndarray, ratio: float) -> bool:
    """Whether a clip that fits a window would no longer when spoken at a slower pace."""
    return ratio < 1 and len(samples) / ratio > LONGEST_S * audio.SAMPLE_RATE


def _voice(
    samples: np.ndarray, drawn: Mapping[str, np.random.Generator], tables: Transforms
) -> tuple[np.ndarray, list[Step]]:
    steps: list[Step] = []
    if "speed" in drawn and tables.speed:
        speed = draws.log_uniform(tables.speed.range, drawn["speed"])
        if _too_long(samples, speed):
            steps.append({"name": "speed", "speed": speed, "skipped": TOO_LONG})
        else:
            samples = accent.shift_speed(samples, speed=speed)
            steps.append({"name": "speed", "speed": speed})
    tempo, numbers = 1.0, {}
    if "tempo" in drawn and tables.tempo:
        tempo = draws.log_uniform(tables.tempo.range, drawn["tempo"])
        if _too_long(samples, tempo):
            steps.append({"name": "tempo", "tempo": tempo, "skipped": TOO_LONG})
            tempo = 1.0
        else:
            steps.append({"name": "tempo", "tempo": tempo})
    if "pitch" in drawn and tables.pitch:
        numbers["pitch_semitones"] = draws.uniform(tables.pitch.semitones, drawn["pitch"])
        steps.append({"name": "pitch", "semitones": numbers["pitch_semitones"]})
    if "formants" in drawn and tables.formants:
        numbers["formants"] = draws.log_uniform(tables.formants.range, drawn["formants"])
        steps.append({"name": "formants", "factor": numbers["formants"]})
    if "contour" in drawn and tables.contour:
        numbers["contour"] = draws.uniform(tables.contour.range, drawn["contour"])
        steps.append({"name": "contour", "factor": numbers["contour"]})
    if "rhythm" in drawn and tables.rhythm:
        numbers["rhythm_depth"] = draws.uniform(tables.rhythm.depth, drawn["rhythm"])
        steps.append({"name": "rhythm", "depth": numbers["rhythm_depth"]})
    if numbers and not accent.can_warp(samples):
        steps = [{**step, "skipped": NO_VOICE} if step["name"] in WARPS else step for step in steps]
    if numbers:
        samples = accent.warp(samples, tempo=tempo, rng=drawn.get("rhythm"), **numbers)
    elif tempo != 1.0:
        samples = accent.shift_tempo(samples, tempo=tempo)
    return samples, steps


def _room(samples: np.ndarray, rng: np.random.Generator, materials: Materials) -> tuple[np.ndarray, Step]:
    rooms = materials.rooms
    if rooms is None:
        raise InputError("the plan has a room, but the materials hold none: make them with the same settings")
    index = rooms.draw(rng)
    rt60_s = rooms.rt60_s[index]
    step = {
        "name": "room",
        "room": index,
        "rt60_s": rt60_s if math.isfinite(rt60_s) else None,
        **rooms.facts[index],
    }
    return room.convolve(samples, rooms.responses[index], direct=rooms.direct[index]), step


def _noise(
    samples: np.ndarray, rng: np.random.Generator, table: Noise, materials: Materials, row: _Row
) -> tuple[np.ndarray, Step]:
    snr_db, unreadable = _draw_snr_db(table.snr_db, rng), list[str]()
    talkers = _other_talkers(materials, row) if "babble" in table.wanted_kinds else []
    kinds = [kind for kind in table.wanted_kinds if kind != "babble" or talkers]
    kind = kinds[int(rng.integers(len(kinds)))] if kinds else "babble"
    if kind == "babble":
        made = _babble(len(samples), rng, table, materials, talkers, unreadable)
    elif kind == "recorded":
        made = _recorded(len(samples), rng, materials, unreadable)
    else:
        made = noise.generate(kind, len(samples), rng)
    failed = {"unreadable": unreadable} if unreadable else {}
    if made is None:
        why = "nobody else's speech" if kind == "babble" else "no recording that is not broken or silent"
        if row.must:
            raise InputError(f"{row.id}: no {kind} noise, as there is {why}; see `from` and `babble_from`")
        return samples, {"name": "noise", "kind": None, "skipped": f"{kind}: {why}", **failed}
    sound, facts = made
    mixed, measured_db = noise.mix(samples, sound, snr_db=snr_db)
    measured = round(measured_db, 3) if math.isfinite(measured_db) else None  # None: the row is silent
    numbers = {"snr_db": snr_db, "measured_snr_db": measured}
    return mixed, {"name": "noise", "kind": kind, **numbers, **facts, **failed}


def _draw_snr_db(wanted: tuple[float, ...], rng: np.random.Generator) -> float:
    if len(wanted) == 2:
        return draws.uniform((min(wanted), max(wanted)), rng)
    return wanted[int(rng.integers(len(wanted)))]


def _other_talkers(materials: Materials, row: _Row) -> list[str]:
    """Who may talk behind this row: never its own speaker, so nobody of the rows if that is not known."""
    if row.speaker is None and not materials.talkers_named:
        return []
    return [speaker for speaker in materials.talkers if speaker != row.speaker]


def _babble(
    samples_count: int, rng: np.random.Generator, table: Noise, materials: Materials, talkers: list[str],
    unreadable: list[str],
) -> tuple[np.ndarray, dict[str, Any]] | None:  # fmt: skip
    """Others' talk; recordings that cannot be decoded are added to `unreadable`."""
    if not talkers:
        return None
    count = int(rng.integers(int(table.talkers[0]), int(table.talkers[1]) + 1))
    # With few speakers, some talk twice, as far as can be in other words.
    chosen = [talkers[i % len(talkers)] for i in rng.permutation(max(count, len(talkers)))[:count]]
    voices: list[np.ndarray] = []
    ids: list[str] = []
    for speaker in chosen:
        utterances = materials.talkers[speaker]
        unheard = [utterance for utterance in utterances if utterance.id not in ids] or utterances
        recording = unheard[int(rng.integers(len(unheard)))]
        try:
            voices.append(recordings.read_talk(recording))
            ids.append(recording.id)
        except audio.AudioError as error:
            log.warning("babble: left out: %s", error)
            unreadable.append(recording.id)
    sound = noise.babble(voices, samples_count, rng)
    return (sound, {"talkers": ids}) if sound.any() else None


def _recorded(
    samples_count: int, rng: np.random.Generator, materials: Materials, unreadable: list[str]
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """A stretch of a noise file; those that cannot be decoded are added to `unreadable`."""
    for _ in range(NOISE_TRIES if materials.recordings else 0):
        recording: Recording = materials.recordings[int(rng.integers(len(materials.recordings)))]
        try:
            stretch, start_s = recordings.read_stretch(recording, samples_count, rng, keep=materials.keep_noise)
        except audio.AudioError as error:
            log.warning("noise: left out: %s", error)
            unreadable.append(recording.id)
            continue
        sound = noise.loop(stretch, samples_count, rng)
        if not noise.is_silent(sound):
            return sound, {"source": recording.id, "start_s": start_s}
    return None


def _channel(
    samples: np.ndarray, drawn: Mapping[str, np.random.Generator], tables: Transforms
) -> tuple[np.ndarray, list[Step]]:
    steps: list[Step] = []
    if "clip" in drawn and tables.clip:
        samples, facts = channel.clip(samples, drive_db=draws.uniform(tables.clip.drive_db, drawn["clip"]))
        steps.append({"name": "clip", **facts})
    if "band" in drawn and tables.band:
        low_hz = draws.uniform(tables.band.low_hz, drawn["band"])
        high_hz = draws.uniform(tables.band.high_hz, drawn["band"])
        samples = channel.limit_band(samples, low_hz=low_hz, high_hz=high_hz)
        steps.append({"name": "band", "low_hz": low_hz, "high_hz": high_hz})
    if "telephone" in drawn and tables.telephone:
        samples = channel.telephone(samples, mu_law=tables.telephone.mu_law)
        steps.append({"name": "telephone", "mu_law": tables.telephone.mu_law})
    if "codec" in drawn and tables.codec:
        codec = tables.codec.formats[int(drawn["codec"].integers(len(tables.codec.formats)))]
        kbps = draws.uniform(tables.codec.kbps, drawn["codec"])
        samples, facts = channel.code(samples, codec=codec, kbps=kbps)
        steps.append({"name": "codec", **facts})
    if "gain" in drawn and tables.gain:
        samples, facts = channel.change_gain(samples, gain_db=draws.uniform(tables.gain.db, drawn["gain"]))
        steps.append({"name": "gain", **facts})
    return samples, steps
