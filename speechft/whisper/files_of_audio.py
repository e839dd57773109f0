"""Transcribe audio files of any length: long ones are cut at quiet moments into pieces of at most 30 s."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from speechft import audio
from speechft.errors import InputError
from speechft.progress import Progress
from speechft.whisper import decode, load


def transcribe(
    paths: Sequence[Path], *, model: str = "nano", language: str | None = None
) -> Iterator[tuple[Path, str]]:
    """Yield each file with its transcript; device and progress are told in the log.

    Raises:
        InputError: the model or a file cannot be used; a file whose samples turn out bad is told after all the others.
    """
    for path in paths:
        audio.probe(path)  # a missing file is told before the model is loaded
    whisper, device = load.load(model, language=language), load.told_device()
    faults: list[str] = []
    for path in paths:
        try:
            pieces = list(decode.thirty_second_pieces(audio.read(path)))
        except audio.AudioError as error:
            faults.append(str(error))
            continue
        with Progress(path.name) as tell:
            texts = decode.from_audio(whisper, pieces, device=device, progress=tell.part(0, len(pieces)))
        yield path, " ".join(text for text in texts if text)
    if faults:
        raise InputError("; ".join(faults))
