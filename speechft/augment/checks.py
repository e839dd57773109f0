"""What a pipeline asks of `[augment]` and `[conditions]`, checked before anything starts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.augment import recordings, say, sources, synth
from speechft.augment import settings as tables_of
from speechft.augment.settings import DEFAULT, Say, Voices
from speechft.errors import InputError


def check(
    settings: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], *, language: str | None = "en",
    data: Mapping[str, Sequence[Path]] | None = None, synth_voices: Voices | None = None,
) -> None:  # fmt: skip
    """Check a pipeline's `[augment]` tables and `[conditions]` before anything starts.

    Args:
        language: what is spoken; None where texts are translations.
        data: the manifests of `train`, `dev` and `test`.
        synth_voices: who says synthetic training rows, if there are any.

    Raises:
        InputError: a transform, setting or value is wrong, no voice speaks the language, training takes noise or babble
            from dev or test rows, or a condition takes it from training rows or uses what training uses too.
    """
    training, rows = tables_of.check(settings or DEFAULT), data or {}
    for role in ("dev", "test"):
        # One manifest for several roles says `split` in each row, and none marked dev or test is used.
        alone = set(rows.get(role, ())) - set(rows.get("train", ()))
        if heard := recordings.shared(alone, sources.paths(training)):
            raise InputError(f"augment: {heard[0]} is what data.{role} names; training must not hear it")
    _check_voices(training.say, where="augment.say", held_out=False, language=language)
    _check_voices(synth_voices, where="synth.voices", held_out=False, language=language)
    for name, tables in conditions.items():
        checked = tables_of.check_condition(tables, name=name)
        if both := recordings.shared([*sources.paths(training), *rows.get("train", ())], sources.paths(checked)):
            raise InputError(
                f"conditions.{name}: {both[0]} is used in training too; a condition needs its own material"
            )
        _check_voices(checked.say, where=f"conditions.{name}.say", held_out=True, language=language)
        for voices in (training.say, synth_voices):
            if checked.say is None or voices is None:
                continue
            trained, tested = people(voices.speakers(held_out=False)), people(checked.say.speakers(held_out=True))
            if both_say := trained & tested:
                raise InputError(
                    f"conditions.{name}.say: {min(both_say)} speaks in training too; name other variants (timbres), "
                    "as one is the same speaker in any accent"
                )


def people(speakers: set[tuple[str, str]]) -> set[str]:
    """Who speaks: a timbre, whatever it reads in; without one the voice itself."""
    return {timbre or name for name, timbre in speakers}


def _check_voices(voices: Voices | None, *, where: str, held_out: bool, language: str | None) -> None:
    if voices is None or (isinstance(voices, Say) and voices.p == 0):
        return
    if language is None:
        raise InputError(f'{where}: {say.TRANSLATED}; leave it out, or set model.task = "transcribe"')
    if voices.command is not None:
        return
    if not voices.speaking(language):
        raise InputError(f"{where}.accents: none speaks {language!r}; name eSpeak NG's voices of it")
    names, variants = synth.espeak_names()
    for name, variant in sorted(voices.speakers(held_out=held_out)):
        if name not in names or variant not in variants:
            wrong = name if name not in names else variant
            raise InputError(f"{where}: eSpeak NG has no voice or variant {wrong!r}")
