"""Say it again: a row's text by a synthetic voice of its language, English also in foreign or replaced sounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from speechft import audio
from speechft.audio import SAMPLE_RATE
from speechft.augment import draws, levels, phonemes, synth
from speechft.augment.settings import Voices
from speechft.errors import InputError
from speechft.text import language_code

PAUSE_S = (0.05, 0.3)  # silence before and after
LONGEST_S = 30.0  # a window
TRANSLATED = "the rows' texts are translations, which nobody spoke"


def say(
    text: str, settings: Voices, rng: np.random.Generator, *, held_out: bool, language: str | None = "en",
    level_db: float = levels.SPEECH_DB,
) -> tuple[np.ndarray, dict[str, Any]]:  # fmt: skip
    """Speak a text in a voice drawn from the settings.

    Args:
        text: what to say.
        settings: accents, timbres, rates and pitches to draw from, or another command.
        rng: where the draws come from.
        held_out: whether to use the timbres that training never does.
        language: of the text, None if it is a translation. Only English is said in foreign sounds, or with sounds
            replaced; any other language needs voices of its own among `accents`.
        level_db: of the active speech, re full scale.

    Returns:
        float32 samples at 16 kHz, shape (samples,), at most 30 s, and facts: `speaker`, `accent` (the voice's name, a
        language where it is foreign); where eSpeak speaks, `rate`, `pitch` and `pitch_range`; with replaced sounds
        `phonemes`, `replaced` and `of`.

    Raises:
        InputError: nothing can be said (no text or a translation, no voice of the language, the command failed or
            timed out, over 30 s).
    """
    if language is None:
        raise InputError(TRANSLATED)
    if not text.strip():
        raise InputError("there is no text to say")
    voice, accent = draw_voice(settings, rng, held_out=held_out, language=language)
    facts: dict[str, Any] = {"speaker": voice.speaker, "accent": accent}
    spoken = text
    if voice.engine == "espeak":
        facts |= {"rate": voice.rate, "pitch": voice.pitch, "pitch_range": voice.pitch_range}
        in_english = language_code(language) == "en"
        rate = draws.uniform(settings.substitute, rng) if settings.substitute[1] > 0 and in_english else 0.0
        spoken = pronounce(
            text, voice, accent, foreign=in_english and accent in phonemes.LANGUAGES, rate=rate, rng=rng, facts=facts
        )
    samples = synth.speak(spoken, voice, timeout_s=settings.timeout_s)
    pauses = [np.zeros(round(draws.uniform(PAUSE_S, rng) * SAMPLE_RATE), np.float32) for _ in range(2)]
    samples = np.concatenate([pauses[0], at_level(samples, level_db), pauses[1]])
    if len(samples) > LONGEST_S * SAMPLE_RATE:
        raise InputError(f"saying it takes over {LONGEST_S:.0f} s")
    return samples, facts


def draw_voice(settings: Voices, rng: np.random.Generator, *, held_out: bool, language: str) -> tuple[synth.Voice, str]:
    """A voice and its accent; every draw happens, so that one setting leaves the others' draws alone.

    Raises:
        InputError: no voice among `accents` speaks the language.
    """
    foreign = rng.random() < settings.foreign_share and bool(settings.foreign) and language_code(language) == "en"
    names = settings.foreign if foreign else settings.speaking(language)
    if not names and not settings.command:
        raise InputError(f"none of `accents` speaks {language!r}: name eSpeak NG's voices of it")
    names = names or settings.accents  # a command, which has none, draws too
    variants = settings.timbres(held_out=held_out)
    name, variant = names[int(rng.integers(len(names)))], variants[int(rng.integers(len(variants)))]
    rate = draws.uniform(settings.rate, rng)
    pitch, pitch_range = (round(draws.uniform(bounds, rng)) for bounds in (settings.pitch, settings.pitch_range))
    if settings.command:
        return synth.Voice(engine="command", name=settings.command), "command"
    return synth.Voice(name=name, variant=variant, rate=rate, pitch=pitch, pitch_range=pitch_range), name


def pronounce(
    text: str, voice: synth.Voice, accent: str, *, foreign: bool, rate: float, rng: np.random.Generator,
    facts: dict[str, Any],
) -> str:  # fmt: skip
    """The text, or its phonemes where a voice of another language says English or sounds are replaced."""
    if not foreign and rate == 0:
        return text
    words = synth.phonemes(text, language="en-us" if foreign else voice.name, stress=True)
    if rate:
        words, replaced = phonemes.substitute(words, rate=rate, rng=rng)
        facts |= {"substitute": rate, "replaced": replaced, "of": sum(map(len, words))}
    if foreign:
        words = phonemes.in_language(words, accent)
    facts["phonemes"] = " ".join("_".join(word) for word in words)
    return phonemes.written(words)


def at_level(samples: np.ndarray, level_db: float) -> np.ndarray:
    """Samples whose active speech has a level, lower where the peak would pass 0.99; shape (samples,)."""
    now_db = audio.active_level_db(samples)
    if not math.isfinite(now_db):
        return samples
    gain = 10 ** ((level_db - now_db) / 20)
    return samples * np.float32(levels.possible_gain(samples, gain))
