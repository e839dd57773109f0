"""Opening every row's audio once: rows that cannot be used are rejected with a reason, odd ones are noted."""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from speechft import audio
from speechft.ingest import overlap
from speechft.ingest.ledger import Row
from speechft.manifest import Reject, Utterance

MAX_DURATION_S = overlap.LONGEST_S
SHORTEST_S = 0.1  # under five of the encoder's 20-ms positions
SILENT_PEAK = 1e-4  # -80 dB: nothing was recorded
FASTEST_WORDS_PER_S = 7.0  # auctioneers; people in the shared corpora speak 2 to 4 words a second
SLOWEST_WORDS_PER_S = 0.3
SLOW_FROM_S = 5.0  # shorter clips may hold one word and a pause
ROWS_AT_ONCE = 16  # that a thread is given: one by one, handing over costs more than checking a short clip
LONGEST_WORD = 20  # letters a word on average, above which the script does not put spaces between words


def check_all(rows: Iterable[Row | Reject], *, workers: int = 2) -> Iterator[Row | Reject]:
    """Check rows in worker threads; rejects are passed on.

    Results keep the rows' order whatever the number of workers, and few rows are under way, so that memory stays
    bounded.
    """
    remaining = iter(rows)
    at_once = iter(lambda: list(islice(remaining, ROWS_AT_ONCE)), [])
    pool = ThreadPoolExecutor(max_workers=workers)
    try:
        under_way = deque(pool.submit(_check, some) for some in islice(at_once, 2 * workers))
        while under_way:
            yield from under_way.popleft().result()
            under_way.extend(pool.submit(_check, some) for some in islice(at_once, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _check(rows: list[Row | Reject]) -> list[Row | Reject]:
    return [row if isinstance(row, Reject) else check(row) for row in rows]


def check(row: Row) -> Row | Reject:
    """Decode one row's audio; fill in its duration, its samples' hash and warnings, or say why not.

    A duration within 0.1 s of the whole file's counts as a rounded one and is set to the file's.
    """
    utterance = row.utterance
    if utterance.text is None:
        return _reject(row, "missing text", 'the row has no text (write "" for silence)')
    if utterance.audio_filepath is None:
        return _reject(row, "missing key", "the row has no audio_filepath")
    try:
        duration_s = _duration_s(utterance, audio.probe(utterance.audio_filepath).duration_s)
        if duration_s > MAX_DURATION_S:
            return _reject(
                row,
                "too long",
                f"{duration_s:.2f} s of {utterance.audio_filepath}, over Whisper's {MAX_DURATION_S:.0f} s;"
                " give its segments, or cut it up with offset and duration",
            )
        samples = audio.read(utterance.audio_filepath, offset_s=utterance.offset, duration_s=duration_s)
    except audio.AudioError as error:
        return _reject(row, error.reason, str(error))
    peak = float(np.abs(samples).max())
    return dataclasses.replace(
        row,
        utterance=dataclasses.replace(utterance, duration=round(duration_s, 6)),
        text_key=overlap.text_key(utterance.text),
        audio_sha256=_samples_sha256(samples) if peak > 0 else "",
        warnings=tuple(_warnings(utterance.text, duration_s=duration_s, peak=peak)),
    )


def _duration_s(utterance: Utterance, file_s: float) -> float:
    """Seconds the row covers; a segment past the file's end is left for `audio.read` to name."""
    if utterance.duration is None:
        return max(0.0, file_s - utterance.offset)
    if utterance.offset == 0 and abs(utterance.duration - file_s) <= audio.END_TOLERANCE_S:
        return file_s
    over = utterance.offset + utterance.duration - file_s
    return utterance.duration - over if 0 < over <= audio.END_TOLERANCE_S else utterance.duration


def _reject(row: Row, reason: str, message: str) -> Reject:
    return Reject(row.utterance.row(), reason, f"{row.where}: {message}", row.where)


def _samples_sha256(samples: np.ndarray) -> str:
    """Hash of the samples as 16-bit integers, so that a clip and its copy in another format agree."""
    return hashlib.sha256(np.rint(samples * 32767.0).astype("<i2").tobytes()).hexdigest()


def _warnings(text: str, *, duration_s: float, peak: float) -> Iterator[tuple[str, str]]:
    words = text.split()
    if not words:
        return
    if peak < SILENT_PEAK:
        yield "silent audio", f"no sound, but {len(words)} words of text"
    if duration_s < SHORTEST_S:
        yield "short audio", f"{len(words)} words in {duration_s:.3f} s"
    words_per_s = len(words) / duration_s
    if words_per_s > FASTEST_WORDS_PER_S:
        yield "fast text", f"{words_per_s:.1f} words a second"
    spaced = sum(map(len, words)) <= LONGEST_WORD * len(words)
    if spaced and duration_s > SLOW_FROM_S and words_per_s < SLOWEST_WORDS_PER_S:
        yield "slow text", f"{len(words)} words in {duration_s:.1f} s"
