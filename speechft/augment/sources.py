"""Where noise, babble and rooms come from: recordings found, checked, and read within bounded memory."""

import dataclasses
import functools
import logging
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from speechft import audio, files, manifest
from speechft.augment import room
from speechft.augment.settings import Noise, Transforms
from speechft.errors import InputError
from speechft.manifest import Reject, Utterance

log = logging.getLogger(__name__)

SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".au"}
MANIFEST_SUFFIXES = {".jsonl", ".json", ".csv", ".tsv"}
MUSAN_FOLDERS = {"music", "noise", "speech"}  # the corpus's top level; its speech serves as babble, not as noise
LONGEST_TALK_S = 30.0  # babble takes no more of one utterance: a row may be a whole lecture
LONGEST_KEPT_S = 60.0  # noise recordings up to this are kept whole, where all of them fit
CACHE_BYTES = 64 * 2**20  # of decoded talkers and noise in each process, 17 minutes
TRAINING_ROOMS = 200
CONDITION_ROOMS = 40
LEAKS = "kept apart"  # why a recording is not used that rows hold which must not be heard
NAMED_REJECTS = 5  # in the log; all of them are in `Materials.rejects`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recording:
    """A stretch of a sound file: seconds from its start, and who speaks in it where that is known."""

    path: Path
    offset_s: float = 0.0
    duration_s: float | None = None
    id: str = ""
    speaker: str | None = None
    group: str | None = None  # the recording it is cut from


@dataclasses.dataclass(frozen=True, kw_only=True)
class Materials:
    """What a plan draws from.

    Attributes:
        talkers: speaker -> utterances for babble.
        talkers_named: whether they come from a source the user named, not from the rows themselves.
        recordings: noise files.
        rooms: impulse responses, None when no transform needs them.
        rejects: noise files and babble rows that cannot be used, with reasons.
    """

    talkers: Mapping[str, Sequence[Recording]] = dataclasses.field(default_factory=dict)
    talkers_named: bool = False
    recordings: Sequence[Recording] = ()
    rooms: room.Bank | None = None
    rejects: Sequence[Reject] = ()

    @functools.cached_property
    def keep_noise(self) -> bool:
        """Whether all noise takes no more than half of the cache: of a larger set a file seldom comes twice in time."""
        seconds = sum(recording.duration_s or 0.0 for recording in self.recordings)
        return seconds * audio.SAMPLE_RATE * 4 <= CACHE_BYTES / 2


def materials(
    rows: Iterable[Utterance], *, settings: Transforms, seed: int, bank: Path, held_out: bool,
    unheard: Sequence[Utterance] = (),
) -> Materials:  # fmt: skip
    """Collect what these settings need, simulating rooms once and checking every noise file's header.

    Args:
        rows: utterances that babble is mixed from unless `babble_from` names others; rows without a speaker
            are left out, as they could be anybody, also the one they would disturb.
        settings: checked settings.
        seed: of the simulated rooms.
        bank: where the rooms are kept (`.npz`); test conditions use `<stem>-conditions` beside it.
        held_out: for test conditions: rooms that training has not, and fewer.
        unheard: rows whose sound must not be used, wherever a source has it from: of dev and test rows for training
            views, of training rows for conditions.

    Raises:
        InputError: a source does not exist or holds nothing usable, or babble is asked for alone and there
            are not two speakers to mix it from.
    """
    rooms, wanted = None, settings.room
    if wanted is not None and wanted.p > 0:
        if wanted.source is not None:
            rooms = room.load(wanted.source)
            if "rt60_s" in wanted.model_fields_set:
                rooms = rooms.within(*wanted.rt60_s)
        else:
            rooms = room.simulate_once(
                bank.with_stem(f"{bank.stem}-conditions") if held_out else bank,
                count=wanted.count or (CONDITION_ROOMS if held_out else TRAINING_ROOMS),
                seed=f"{seed}:conditions" if held_out else str(seed),
                rt60_s=wanted.rt60_s,
            )
    noise = settings.noise
    if noise is None or noise.p == 0:
        return Materials(rooms=rooms)
    recordings, voices, rejects = _find_all(noise.source)
    recordings.sort(key=lambda recording: recording.id)
    for source in noise.babble_from:
        others, speech, more = find(source)
        voices += speech or others
        rejects += more
    recordings, voices, leaks = _without(recordings, voices, unheard, whose="training" if held_out else "dev or test")
    rejects += leaks
    if "recorded" in noise.wanted_kinds and not recordings:
        raise InputError(f"noise from {', '.join(map(str, noise.source))}: holds no sound file that can be used")
    talkers: dict[str, list[Recording]] = {}
    if "babble" in noise.wanted_kinds:
        # Sorted, so that the order of the manifest's rows changes nothing that is drawn.
        for talk in sorted(voices or _talk(rows, held_out=held_out), key=lambda talk: (talk.speaker or "", talk.id)):
            talkers.setdefault(talk.speaker or str(talk.path), []).append(talk)
        talkers = dict(sorted(talkers.items()))
        _check_babble(noise, talkers, named=bool(voices))
    if rejects:
        named = "; ".join(reject.detail for reject in rejects[:NAMED_REJECTS])
        log.warning(
            "noise: %d files or rows cannot be used: %s%s",
            len(rejects),
            named,
            ", ..." * (len(rejects) > NAMED_REJECTS),
        )
    return Materials(talkers=talkers, talkers_named=bool(voices), recordings=recordings, rooms=rooms, rejects=rejects)


def _without(
    recordings: Sequence[Recording], voices: Sequence[Recording], unheard: Sequence[Utterance], *, whose: str
) -> tuple[list[Recording], list[Recording], list[Reject]]:
    """Both without what lies in `unheard` rows, by place or as a copy of their file; and what was left out."""
    spans: dict[Path, list[tuple[float, float]]] = {}
    for row in unheard if recordings or voices else ():
        if row.audio_filepath is not None:
            end_s = math.inf if row.duration is None else row.offset + row.duration
            spans.setdefault(Path(row.audio_filepath).resolve(), []).append((row.offset, end_s))
    by_size: dict[int, list[Path]] = {}
    for path in spans:
        if path.exists():
            by_size.setdefault(path.stat().st_size, []).append(path)

    @functools.cache
    def spans_by_content(size: int) -> dict[str, list[tuple[float, float]]]:
        found: dict[str, list[tuple[float, float]]] = {}
        for path in by_size[size]:
            found.setdefault(files.sha256(path), []).extend(spans[path])
        return found

    def leaks(recording: Recording) -> bool:
        path = Path(recording.path).resolve()
        held = spans.get(path, [])
        if not held and (size := path.stat().st_size) in by_size:  # else it is no copy
            held = spans_by_content(size).get(files.sha256(path), [])
        end_s = math.inf if recording.duration_s is None else recording.offset_s + recording.duration_s
        return any(start_s < end_s and recording.offset_s < other_end_s for start_s, other_end_s in held)

    kept: tuple[list[Recording], list[Recording]] = ([], [])
    rejects: list[Reject] = []
    for group, place in ((recordings, kept[0]), (voices, kept[1])):
        for recording in group:
            if leaks(recording):
                where = f"{recording.path}" + (f" at {recording.offset_s:g} s" if recording.offset_s else "")
                told = f"{where}: {whose} rows hold this sound, so it is not used"
                rejects.append(Reject({"audio_filepath": str(recording.path)}, LEAKS, told, where))
            else:
                place.append(recording)
    return *kept, rejects


def _check_babble(noise: Noise, talkers: Mapping[str, Sequence[Recording]], *, named: bool) -> None:
    # From named sources one voice is enough; from the rows themselves it takes another speaker's.
    if len(talkers) >= (1 if named else 2):
        return
    if set(noise.wanted_kinds) == {"babble"}:
        raise InputError(
            "noise: babble needs rows of two speakers or more, with a `speaker` key, or `babble_from`, a "
            "folder or manifest of other people's speech"
        )
    log.warning("noise: no babble, which needs two speakers or `babble_from`; the other kinds are used")


def find(source: Path) -> tuple[list[Recording], list[Recording], list[Reject]]:
    """The sound files of a folder (searched whole), or the rows of a manifest.

    In MUSAN's layout (`music`, `noise` and `speech` side by side) speech is told apart from the rest.

    Args:
        source: a folder, a manifest, or one sound file.

    Returns:
        Recordings, MUSAN's speech, and what cannot be used.

    Raises:
        InputError: there is no such source.
    """
    if source.is_dir():
        found: Iterator[tuple[Recording, bool]] | list[tuple[Recording, bool]] = _in_folder(source)
        rejects: list[Reject] = []
    elif source.suffix.lower() in MANIFEST_SUFFIXES:
        rows, rejects = manifest.scan(source)
        found = [(_recording(row), False) for row in rows]
    elif source.is_file():
        found, rejects = [(Recording(path=source, id=source.name), False)], []
    else:
        raise InputError(f"{source}: there is no such folder, manifest or sound file to take noise from")
    recordings: list[Recording] = []
    speech: list[Recording] = []
    for recording, is_speech in found:
        try:
            info = audio.probe(recording.path)
        except audio.AudioError as error:
            where = str(recording.path)
            rejects.append(Reject({"audio_filepath": where}, error.reason, str(error), where))
            continue
        whole = dataclasses.replace(
            recording, duration_s=recording.duration_s or max(0.0, info.duration_s - recording.offset_s)
        )
        (speech if is_speech else recordings).append(whole)
    return recordings, speech, rejects


def _find_all(sources: Iterable[Path]) -> tuple[list[Recording], list[Recording], list[Reject]]:
    recordings: list[Recording] = []
    speech: list[Recording] = []
    rejects: list[Reject] = []
    for source in sources:
        more, more_speech, more_rejects = find(source)
        recordings += more
        speech += more_speech
        rejects += more_rejects
    return recordings, speech, rejects


def _in_folder(folder: Path) -> Iterator[tuple[Recording, bool]]:
    is_musan = all((folder / name).is_dir() for name in MUSAN_FOLDERS)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SOUND_SUFFIXES and path.is_file():
            place = path.relative_to(folder)
            yield Recording(path=path, id=place.as_posix()), is_musan and place.parts[0] == "speech"


def _recording(row: Utterance) -> Recording:
    assert row.audio_filepath is not None
    return Recording(
        path=row.audio_filepath, offset_s=row.offset, duration_s=row.duration, id=row.id, speaker=row.speaker,
        group=row.recording,
    )  # fmt: skip


def _talk(rows: Iterable[Utterance], *, held_out: bool) -> list[Recording]:
    """Clean rows in which somebody known talks; rows marked dev or test never sound in training."""
    kept_out = () if held_out else ("dev", "test")
    return [
        _recording(row)
        for row in rows
        if row.speaker is not None and row.audio_filepath is not None
        and row.text != "" and row.view == 0 and row.split not in kept_out
    ]  # fmt: skip


def shared(ours: Iterable[Path], theirs: Iterable[Path]) -> list[Path]:
    """Those of `theirs` that are among `ours`; one inside the other counts."""
    held, asked = ({path.resolve() for path in paths} for paths in (ours, theirs))
    return sorted(path for path in asked if any(path == o or path in o.parents or o in path.parents for o in held))


def paths(settings: Transforms) -> list[Path]:
    """Every folder or manifest that settings name: impulse responses, noise, babble."""
    found = [] if settings.room is None or settings.room.source is None else [settings.room.source]
    if settings.noise is not None:
        found += [*settings.noise.source, *settings.noise.babble_from]
    return found


_talk_cache: OrderedDict[tuple[Recording, float], np.ndarray] = OrderedDict()
_talk_cache_bytes = 0


def read_talk(recording: Recording, *, longest_s: float = LONGEST_TALK_S) -> np.ndarray:
    """The start of a recording, at most 30 s, shape (samples,); recently used ones are kept, within 64 MB.

    Raises:
        audio.AudioError: it cannot be decoded.
    """
    global _talk_cache_bytes
    key = (recording, longest_s)
    if key in _talk_cache:
        _talk_cache.move_to_end(key)
        return _talk_cache[key]
    length_s = None if recording.duration_s is None else min(recording.duration_s, longest_s)
    samples = audio.read(recording.path, offset_s=recording.offset_s, duration_s=length_s)
    _talk_cache[key] = samples
    _talk_cache_bytes += samples.nbytes
    while _talk_cache_bytes > CACHE_BYTES:
        _talk_cache_bytes -= _talk_cache.popitem(last=False)[1].nbytes
    return samples


def read_stretch(
    recording: Recording, samples_count: int, rng: np.random.Generator, *, keep: bool = True
) -> tuple[np.ndarray, float]:
    """Up to `samples_count` samples of a recording from a random place.

    Short recordings are read whole and kept for the next rows if `keep`; else no more is read than is used.

    Returns:
        Samples, shape (samples,), and the second they start at.

    Raises:
        audio.AudioError: it cannot be decoded.
    """
    assert recording.duration_s is not None
    length_s = samples_count / audio.SAMPLE_RATE
    slack_s = max(0.0, recording.duration_s - length_s)
    start_s = round(recording.offset_s + slack_s * float(rng.random()), 3)
    if keep and recording.duration_s <= LONGEST_KEPT_S:
        start = round((start_s - recording.offset_s) * audio.SAMPLE_RATE)
        stretch = read_talk(recording, longest_s=LONGEST_KEPT_S)[start:]
    else:
        stretch = audio.read(recording.path, offset_s=start_s, duration_s=min(length_s, recording.duration_s))
    return stretch[:samples_count], start_s
