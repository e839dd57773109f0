"""What a plan draws from: noise, other people's talk and rooms, without what must not be heard."""

import dataclasses
import functools
import hashlib
import heapq
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from speechft import audio
from speechft.augment import room
from speechft.augment.recordings import CACHE_BYTES, Held, Recording, find, listing, of_row
from speechft.augment.settings import Noise, Room, Transforms
from speechft.errors import InputError
from speechft.manifest import Reject, Utterance

log = logging.getLogger(__name__)

TRAINING_ROOMS = 200
CONDITION_ROOMS = 40
LEAKS = "kept apart"  # why a recording is not used that rows hold which must not be heard
MOST_TALKS = 10_000  # recordings that babble is mixed from, some ten hours: each worker holds where all of them are
MOST_OF_ONE = 200  # of a speaker, so that a corpus of one voice and a few others keeps the others
NAMED_REJECTS = 5  # in the log; all of them are in `Materials.rejects`


@dataclasses.dataclass(frozen=True, kw_only=True)
class Materials:
    """What a plan draws from.

    Attributes:
        talkers: speaker -> utterances for babble.
        talkers_named: whether they come from a source the user named, not from the rows themselves.
        recordings: noise files.
        rooms: impulse responses, None when no transform needs them.
        rejects: noise files, babble rows and impulse responses that cannot be used, with reasons.
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
    unheard: Sequence[Utterance] = (), training: Transforms | None = None, disturbed: Sequence[Utterance] = (),
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
            views, of training rows for conditions; for these nobody is used either who speaks in such a row.
        training: for conditions, the settings of training's views, whose noise, babble and rooms are not used.
        disturbed: rows that babble will sound behind, so that files without speakers are known for theirs.

    Raises:
        InputError: a source does not exist or holds nothing usable, or babble is asked for alone and there
            are not two speakers to mix it from.
    """
    apart = _Apart(unheard, training=training, held_out=held_out)
    rooms, rejects = _rooms(settings.room, seed=seed, bank=bank, held_out=held_out, apart=apart)
    noise = settings.noise
    if noise is None or noise.p == 0:
        _tell(rejects)
        return Materials(rooms=rooms, rejects=rejects)
    noises, voices, unusable = _find_all(noise)
    noises, leaks = apart.without(noises)
    voices, more_leaks = apart.without(voices)
    voices, nobodys = _named(voices, disturbed)
    rejects += [_of("noise", reject) for reject in (*unusable, *leaks, *more_leaks, *nobodys)]
    _tell(rejects)
    if "recorded" in noise.wanted_kinds and not noises:
        raise InputError(f"noise from {', '.join(map(str, noise.source))}: holds no sound file that can be used")
    talkers: dict[str, list[Recording]] = {}
    if "babble" in noise.wanted_kinds:
        talkers = _talkers(voices or _talk(rows, held_out=held_out))
        _check_babble(noise, talkers, named=bool(voices))
    return Materials(talkers=talkers, talkers_named=bool(voices), recordings=noises, rooms=rooms, rejects=rejects)


def _rooms(
    wanted: Room | None, *, seed: int, bank: Path, held_out: bool, apart: "_Apart"
) -> tuple[room.Bank | None, list[Reject]]:
    """The impulse responses, and files of a folder that are not used."""
    if wanted is None or wanted.p == 0:
        return None, []
    if wanted.source is not None:
        rooms = room.load(wanted.source, leave_out=lambda path: apart.reject(Recording(path=path, id=path.name)))
        rejects = [_of("room", reject) for reject in rooms.rejects]
        return (rooms.within(*wanted.rt60_s) if "rt60_s" in wanted.model_fields_set else rooms), rejects
    rooms = room.simulate_once(
        bank.with_stem(f"{bank.stem}-conditions") if held_out else bank,
        count=wanted.count or (CONDITION_ROOMS if held_out else TRAINING_ROOMS),
        seed=f"{seed}:conditions" if held_out else str(seed),
        rt60_s=wanted.rt60_s,
    )
    return rooms, []


def _of(what: str, reject: Reject) -> Reject:
    return dataclasses.replace(reject, reason=f"{what}: {reject.reason}")


def _tell(rejects: Sequence[Reject]) -> None:
    if rejects:
        named = "; ".join(reject.detail for reject in rejects[:NAMED_REJECTS])
        more = ", ..." if len(rejects) > NAMED_REJECTS else ""
        log.warning("noise and rooms: %d files or rows cannot be used: %s%s", len(rejects), named, more)


class _Apart:
    """What must not be heard of the sources that settings name, and why."""

    def __init__(self, unheard: Sequence[Utterance], *, training: Transforms | None, held_out: bool) -> None:
        self._unheard, self._training = unheard, training
        self._whose = "training" if held_out else "dev or test"
        self._speakers = {row.speaker for row in unheard if row.speaker} if held_out else set()

    @functools.cached_property
    def _rows(self) -> Held:
        return Held(of_row(row) for row in self._unheard if row.audio_filepath is not None)

    @functools.cached_property
    def _sources(self) -> Held:
        named = paths(self._training) if self._training else []
        return Held(recording for path in named for recording, _ in listing(path)[0])

    def reject(self, recording: Recording) -> Reject | None:
        """Why a recording must not be used, if so."""
        if self._rows.holders(recording):
            why = f"{self._whose} rows hold this sound"
        elif self._sources.holders(recording):
            why = "training's noise, babble or rooms hold this sound"
        elif recording.speaker in self._speakers:
            why = f"{recording.speaker} speaks in training rows"
        else:
            return None
        told = f"{recording.place}: {why}, so it is not used"
        return Reject({"audio_filepath": str(recording.path)}, LEAKS, told, recording.place)

    def without(self, recordings: Sequence[Recording]) -> tuple[list[Recording], list[Reject]]:
        """Recordings that may be heard, and the others."""
        found = [(recording, self.reject(recording)) for recording in recordings]
        return [r for r, reject in found if not reject], [reject for _, reject in found if reject]


def _named(voices: Sequence[Recording], rows: Sequence[Utterance]) -> tuple[list[Recording], list[Reject]]:
    """Voices of files without speakers, with the speakers of rows that hold the same sound: nobody babbles behind
    himself. Left out are those whose row has no speaker either, and those in which rows name several."""
    if all(voice.speaker for voice in voices):
        return [*voices], []
    held = Held(of_row(row) for row in rows if row.audio_filepath is not None)
    kept, rejects = list[Recording](), list[Reject]()
    for voice in voices:
        holders = [] if voice.speaker else held.holders(voice)
        speakers = {row.speaker for row in holders}
        if not holders:
            kept.append(voice)
        elif len(speakers) == 1 and (speaker := next(iter(speakers))):
            kept.append(dataclasses.replace(voice, speaker=speaker))
        else:
            names = "names no speaker" if None in speakers else "has another speaker than others of this file"
            why = f"{voice.place}: it would babble behind the row {holders[0].id}, which holds this sound and {names}"
            rejects.append(Reject({"audio_filepath": str(voice.path)}, "no speaker", why, voice.place))
    return kept, rejects


def _find_all(noise: Noise) -> tuple[list[Recording], list[Recording], list[Reject]]:
    """Noise, voices for babble, and what cannot be used, of all sources."""
    noises, voices, rejects = list[Recording](), list[Recording](), list[Reject]()
    for source in noise.source:
        more, speech, unusable = find(source)
        noises += more
        voices += speech
        rejects += unusable
    for source in noise.babble_from:
        others, speech, unusable = find(source)
        voices += speech or others
        rejects += unusable
    return sorted(noises, key=lambda recording: recording.id), voices, rejects


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


def _talkers(talks: Iterable[Recording]) -> dict[str, list[Recording]]:
    """Recordings by speaker, at most `MOST_TALKS`, and `MOST_OF_ONE` of each, chosen by their ids' hashes and sorted:
    the order of the manifest's rows changes nothing that is drawn."""

    def by_chance(talk: Recording) -> bytes:
        return hashlib.sha256(talk.id.encode()).digest()

    def chosen(held: Iterable[Recording]) -> list[Recording]:
        found = _by_speaker(held).values()
        few = (talk for talks in found for talk in heapq.nsmallest(MOST_OF_ONE, talks, key=by_chance))
        return heapq.nsmallest(MOST_TALKS, few, key=by_chance)

    held = list[Recording]()
    for talk in talks:
        held.append(talk)
        if len(held) == 2 * MOST_TALKS:  # whoever is left out now has as many before them in the end
            held = chosen(held)
    return dict(sorted(_by_speaker(sorted(chosen(held), key=lambda talk: (talk.speaker or "", talk.id))).items()))


def _by_speaker(talks: Iterable[Recording]) -> dict[str, list[Recording]]:
    found: dict[str, list[Recording]] = {}
    for talk in talks:
        found.setdefault(talk.speaker or str(talk.path), []).append(talk)
    return found


def _talk(rows: Iterable[Utterance], *, held_out: bool) -> Iterator[Recording]:
    """Clean rows in which somebody known talks; rows marked dev or test never sound in training."""
    kept_out = () if held_out else ("dev", "test")
    for row in rows:
        known = row.speaker is not None and row.audio_filepath is not None and row.text != ""
        if known and row.view == 0 and row.split not in kept_out:
            yield of_row(row)


def paths(settings: Transforms) -> list[Path]:
    """Every folder or manifest that settings name: impulse responses, noise, babble."""
    found = [] if settings.room is None or settings.room.source is None else [settings.room.source]
    if settings.noise is not None:
        found += [*settings.noise.source, *settings.noise.babble_from]
    return found
