"""What a pipeline asks of `[augment]` and `[conditions]`, checked before anything starts."""

from collections.abc import Mapping
from typing import Any

from speechft.augment import say, sources, synth
from speechft.augment import settings as tables_of
from speechft.augment.settings import DEFAULT, Transforms
from speechft.errors import InputError
from speechft.text import language_code


def check(
    settings: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]], *, language: str | None = "en",
    views: int = 1,
) -> None:  # fmt: skip
    """Check a pipeline's `[augment]` tables and `[conditions]` before anything starts.

    Args:
        language: what is spoken; None where texts are translations.
        views: of each row; without any, the default chain needs no voice.

    Raises:
        InputError: a transform, setting or value is wrong, no voice speaks the language, or a condition uses noise,
            babble or impulse responses that training uses too.
    """
    training = tables_of.check(settings or DEFAULT)
    by_default = views > 0 and language_code(language or "") == "en"  # another language it leaves out
    if settings or by_default:
        try:
            _check_voices(training, where="augment", held_out=False, language=language)
        except InputError as error:
            if settings:
                raise
            raise InputError(
                f"augment: the default chain says rows again, but {error}; or name other transforms"
            ) from error
    for name, tables in conditions.items():
        checked = tables_of.check_condition(tables, name=name)
        shared = sources.shared_sources(training, checked)
        if shared:
            raise InputError(
                f"conditions.{name}: {shared[0]} is used in training too; a condition needs its own material"
            )
        _check_voices(checked, where=f"conditions.{name}", held_out=True, language=language)
        if training.say and checked.say:
            both = training.say.speakers(held_out=False) & checked.say.speakers(held_out=True)
            if both:
                raise InputError(
                    f"conditions.{name}.say: the voice {'+'.join(sorted(both)[0])} speaks in training too; name other "
                    "variants"
                )


def _check_voices(tables: Transforms, *, where: str, held_out: bool, language: str | None) -> None:
    if tables.say is None or tables.say.p == 0:
        return
    if language is None:
        raise InputError(f'{where}.say: {say.TRANSLATED}; leave it out, or set model.task = "transcribe"')
    if tables.say.command is not None:
        return
    if not tables.say.speaking(language):
        raise InputError(f"{where}.say.accents: none speaks {language!r}; name eSpeak NG's voices of it")
    names, variants = synth.espeak_names()
    for name, variant in sorted(tables.say.speakers(held_out=held_out)):
        if name not in names or variant not in variants:
            wrong = name if name not in names else variant
            raise InputError(f"{where}.say: eSpeak NG has no voice or variant {wrong!r}")
