"""What a pipeline asks of `[augment]` and `[conditions]`, checked before anything starts."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from speechft.augment import recordings, say, sources, synth
from speechft.augment import settings as tables_of
from speechft.augment.settings import DEFAULT, Say, Voices
from speechft.augment.speak import CHECKING_VARIANTS
from speechft.errors import InputError


def check(
    settings: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], *, language: str | None = "en",
    data: Mapping[str, Sequence[Path]] | None = None, synth_voices: Voices | None = None,
    spoken: Collection[str] = (),
) -> None:  # fmt: skip
    """Check a pipeline's `[augment]` tables and `[conditions]` before anything starts.

    Args:
        language: what is spoken; None where texts are translations.
        data: the manifests of `train`, `dev` and `test`.
        synth_voices: who says synthetic training rows, if there are any.
        spoken: roles that are spoken; dev and test by timbres of their own.

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
    checking = sorted(CHECKING_VARIANTS.keys() & set(spoken))
    _check_voices(synth_voices, where="synth.voices", held_out=False, language=language, beside=bool(checking))
    for where, voices in (("synth.voices", synth_voices), ("augment.say", training.say)):
        trained = _people(voices.speakers(held_out=False)) if voices and _speaks(voices) else set()
        for role in checking:
            if shared_by := trained & set(CHECKING_VARIANTS[role]):
                raise InputError(f"{where}.variants: {min(shared_by)} says the {role} rows of [synth]; leave it out")
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
            trained, tested = _people(voices.speakers(held_out=False)), _people(checked.say.speakers(held_out=True))
            if both_say := trained & tested:
                raise InputError(
                    f"conditions.{name}.say: {min(both_say)} speaks in training too; name other variants (timbres), "
                    "as one is the same speaker in any accent"
                )


def _people(speakers: set[tuple[str, str]]) -> set[str]:
    """Who speaks: a timbre, whatever it reads in; without one the voice itself."""
    return {timbre or name for name, timbre in speakers}


def _check_voices(
    voices: Voices | None, *, where: str, held_out: bool, language: str | None, beside: bool = False
) -> None:
    """Refuse voices that eSpeak NG does not have; of a command's, whose own are not known, those that speak `beside`
    it."""
    if voices is None or not _speaks(voices):
        return
    if language is None:
        raise InputError(f'{where}: {say.TRANSLATED}; leave it out, or set model.task = "transcribe"')
    if voices.command is not None and not beside:
        return
    if not voices.speaking(language):
        told = " (they say dev and test rows, whatever `command` says)" if voices.command else ""
        raise InputError(f"{where}.accents: none speaks {language!r}; name eSpeak NG's voices of it{told}")
    names, variants = synth.espeak_names()
    asked = {(name, "") for name in voices.accents} if voices.command else voices.speakers(held_out=held_out)
    for name, variant in sorted(asked):
        if name not in names or (variant and variant not in variants):
            wrong = name if name not in names else variant
            raise InputError(f"{where}: eSpeak NG has no voice or variant {wrong!r}")


def _speaks(voices: Voices) -> bool:
    return not isinstance(voices, Say) or voices.p > 0
