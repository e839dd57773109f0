"""Rows from a script: each line spoken by a drawn voice into a sound file; lines that fail are named and counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechft import audio, files, workers
from speechft.augment import draws, say
from speechft.augment.script import Line
from speechft.augment.settings import HELD_OUT_VARIANTS, Voices
from speechft.augment.views import file_name
from speechft.errors import InputError
from speechft.manifest import Reject, Utterance
from speechft.text import language_code

# The check sets are spoken in timbres that neither training nor each other has.
CHECKING_VARIANTS = {"dev": HELD_OUT_VARIANTS[0::2], "test": HELD_OUT_VARIANTS[1::2]}


@dataclass(frozen=True, kw_only=True)
class _Job:
    line: Line
    role: str
    voices: Voices
    seed: int
    path: Path
    language: str


def speak(
    lines: Sequence[Line], *, role: str, voices: Voices, seed: int, out: Path, language: str = "en",
    processes: int | None = None, progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[Utterance], list[Reject]]:  # fmt: skip
    """Speak lines; finished ones of an earlier attempt are kept.

    Args:
        lines: what to say.
        role: "train", "general_train" (replay), or "dev" or "test": these by voices that training never uses, none
            of them foreign.
        voices: for training.
        seed: of the draws, with each line's id.
        out: folder of the sound files.
        language: of the lines; another than English needs voices of its own among `voices.accents`.
        processes: worker processes; one a core unless said.
        progress: told how many of how many lines are done.

    Returns:
        rows marked `synthetic`, with `split` = role, and the lines that could not be said.
    """
    if role in CHECKING_VARIANTS:
        accents = Voices().accents if language_code(language) == "en" else voices.accents
        own = CHECKING_VARIANTS[role]
        voices = Voices(accents=accents, variants=own, foreign_share=0.0, substitute=(0.0, 0.0))
    given: dict[str, Any] = {"role": role, "voices": voices, "seed": seed, "language": language}
    jobs = [_Job(line=line, path=out / file_name(line.id), **given) for line in lines]
    rows: list[Utterance] = []
    rejects: list[Reject] = []
    if not jobs:
        return rows, rejects
    at_once = min(processes or workers.cores(), len(jobs))
    for number, made in enumerate(workers.each(_speak_one, jobs, processes=at_once, preload=__name__), start=1):
        rows.append(made) if isinstance(made, Utterance) else rejects.append(made)
        progress(number, len(jobs))
    return rows, rejects


def _speak_one(job: _Job) -> Utterance | Reject:
    sidecar = job.path.with_suffix(".json")
    if not sidecar.exists():
        rng = draws.generator(f"{job.seed}:synth:{job.line.id}")
        try:
            held_out = job.role in CHECKING_VARIANTS
            samples, facts = say.say(job.line.spoken, job.voices, rng, held_out=held_out, language=job.language)
        except InputError as error:
            # Not kept: another attempt, with the voice repaired, says it again.
            return Reject({"id": job.line.id, "text": job.line.text}, "cannot be said", str(error), job.line.id)
        audio.write(job.path, samples)
        files.write_json(sidecar, {**facts, "duration": len(samples) / audio.SAMPLE_RATE})
    facts = files.read_json(sidecar)
    extra: dict[str, Any] = {"synthetic": True, "voice": _voice_facts(facts)}
    if job.line.spoken != job.line.text:
        extra["spoken"] = job.line.spoken
    if job.line.term:
        extra["term"] = job.line.term
    return Utterance(
        id=job.line.id, audio_filepath=job.path.absolute(), text=job.line.text, duration=facts["duration"],
        speaker=facts["speaker"], accent=facts["accent"], lang=job.language, split=job.role, extra=extra,
    )  # fmt: skip


def _voice_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key not in ("speaker", "accent", "duration")}
