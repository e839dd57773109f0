"""The settings of every transform, with their defaults and bounds, checked all at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from speechft.augment import phonemes
from speechft.errors import InputError
from speechft.text import language_code

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Codec = Literal["opus", "mp3", "vorbis"]
NoiseKind = Literal["white", "pink", "brown", "hum", "babble", "recorded"]
# eSpeak NG's timbres, men and women in both; of the demo's dev and test speakers training has none.
TRAINING_VARIANTS = tuple("m1 m2 m3 m5 f1 f2 f4 Alicia Annie Denis Lee belinda linda max paul".split())
HELD_OUT_VARIANTS = tuple("m4 m7 f3 f5 Andy Michael anika shelby".split())


def _pair(value: Any) -> Any:
    """A single number is a range that holds only itself."""
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Path | int | float) and not isinstance(value, bool) else value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"must have the smaller number first, got {list(value)}")
    return value


def _between(lowest: float, highest: float) -> pydantic.AfterValidator:
    def check(value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(lowest <= number <= highest for number in value):
            raise ValueError(f"must lie within {lowest:g} to {highest:g}, got {list(value)}")
        return value

    return pydantic.AfterValidator(check)


Range = Annotated[tuple[float, float], pydantic.BeforeValidator(_pair), pydantic.AfterValidator(_ordered)]
Ratio = Annotated[Range, _between(0.5, 2.0)]
Numbers = Annotated[tuple[float, ...], pydantic.BeforeValidator(_listed), pydantic.Field(min_length=1)]
Paths = Annotated[tuple[Path, ...], pydantic.BeforeValidator(_listed)]


class _Transform(pydantic.BaseModel):
    """`p` is the probability that a view has the transform; in a fixed condition it is 1 unless said."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    p: Share = 1.0


class Voices(pydantic.BaseModel):
    """Who says a text again.

    `accents` are eSpeak NG's voices, each for rows in its language; `foreign` say English in their own sounds;
    `foreign_share` says how often. `variants` are timbres; where none are named, fixed conditions use others than
    training. `substitute` is the share of phonemes replaced at random. `command` is any program that speaks instead:
    it holds {wav} (the file to write), and {text} or reads the text.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    accents: Annotated[tuple[str, ...], pydantic.BeforeValidator(_listed), pydantic.Field(min_length=1)] = (
        "en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-gb-x-gbcwmd", "en-gb-x-gbclan", "en-029",
    )  # fmt: skip
    foreign: Annotated[tuple[str, ...], pydantic.BeforeValidator(_listed)] = tuple(phonemes.LANGUAGES)
    foreign_share: Share = 0.4
    variants: Annotated[tuple[str, ...], pydantic.BeforeValidator(_listed)] = ()
    substitute: Annotated[Range, _between(0.0, 0.5)] = (0.0, 0.1)
    rate: Annotated[Range, _between(0.5, 2.0)] = (0.8, 1.2)
    pitch: Annotated[Range, _between(0, 99)] = (35, 65)
    pitch_range: Annotated[Range, _between(0, 99)] = (35, 65)
    command: str | None = None
    timeout_s: Annotated[float, pydantic.Field(gt=0, le=3600)] = 60.0

    @pydantic.field_validator("foreign")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in phonemes.LANGUAGES]
        if unknown:
            raise ValueError(f"knows the sounds of {', '.join(phonemes.LANGUAGES)}, not of {', '.join(unknown)}")
        return value

    @pydantic.field_validator("command")
    @classmethod
    def _writes(cls, value: str | None) -> str | None:
        if value is not None and "{wav}" not in value:
            raise ValueError("must hold {wav}, the file the command is to write")
        return value

    def timbres(self, *, held_out: bool) -> tuple[str, ...]:
        """The variants named, or those of training or of fixed conditions."""
        return self.variants or (HELD_OUT_VARIANTS if held_out else TRAINING_VARIANTS)

    def speaking(self, language: str) -> tuple[str, ...]:
        """Those of `accents` that speak a language."""
        return tuple(name for name in self.accents if language_code(name) == language_code(language))

    def speakers(self, *, held_out: bool) -> set[tuple[str, str]]:
        """Every voice that may speak: (eSpeak voice, timbre), or (command, "")."""
        if self.command is not None:
            return {(self.command, "")}
        names = (*(self.accents if self.foreign_share < 1 else ()), *(self.foreign if self.foreign_share > 0 else ()))
        return {(name, variant) for name in names for variant in self.timbres(held_out=held_out)}


class Say(_Transform, Voices):
    """The text said again by a synthetic voice instead of the recording; synthetic to real is p to 1 - p."""

    p: Share = 0.15  # measured: docs/augment.md


class Speed(_Transform):
    """Resampled: tempo, pitch and formants move together."""

    p: Share = 0.3
    range: Ratio = (0.9, 1.1)


class Tempo(_Transform):
    """Faster (above 1) or slower, pitch kept."""

    p: Share = 0.3
    range: Ratio = (0.85, 1.2)


class Pitch(_Transform):
    """Higher or lower voice, formants kept."""

    p: Share = 0.3
    semitones: Annotated[Range, _between(-12, 12)] = (-3.0, 3.0)


class Formants(_Transform):
    """Formant frequencies times this: above 1 a shorter vocal tract."""

    p: Share = 0.3
    range: Ratio = (0.88, 1.14)


class Contour(_Transform):
    """Pitch movements times this: 0 is monotone, above 1 lively."""

    p: Share = 0.2
    range: Annotated[Range, _between(0.0, 3.0)] = (0.5, 1.5)


class Rhythm(_Transform):
    """Local tempo swings by up to this share within a clip whose length stays."""

    p: Share = 0.2
    depth: Annotated[Range, _between(0.0, 0.5)] = (0.05, 0.25)


class Room(_Transform):
    """Simulated rooms, or impulse responses from a folder (`from`)."""

    p: Share = 0.3
    count: Annotated[int, pydantic.Field(ge=1, le=10_000)] | None = None
    rt60_s: Annotated[Range, _between(0.05, 2.0)] = (0.15, 0.8)
    source: Annotated[Path | None, pydantic.Field(alias="from")] = None


class Noise(_Transform):
    """`snr_db`: a number, a range of two, or a list of three or more. `from`, `babble_from`: where from."""

    p: Share = 0.6
    snr_db: Annotated[Numbers, _between(-30, 60)] = (5.0, 25.0)
    kinds: Annotated[tuple[NoiseKind, ...], pydantic.BeforeValidator(_listed), pydantic.Field(min_length=1)] | None = (
        None
    )
    source: Annotated[Paths, pydantic.Field(alias="from")] = ()
    babble_from: Paths = ()
    talkers: Annotated[Range, _between(1, 20)] = (3, 7)

    @property
    def wanted_kinds(self) -> tuple[NoiseKind, ...]:
        """The kinds named; else the user's recordings with babble, or babble with every generated kind."""
        if self.kinds is not None:
            return self.kinds
        return ("recorded", "babble") if self.source else ("babble", "pink", "white", "brown", "hum")

    @pydantic.model_validator(mode="after")
    def _recorded_from_somewhere(self) -> "Noise":
        if "recorded" in self.wanted_kinds and not self.source:
            raise ValueError('kind "recorded" needs `from`, a folder or manifest of noise')
        for key, named, kind in (("from", self.source, "recorded"), ("babble_from", self.babble_from, "babble")):
            if named and kind not in self.wanted_kinds:
                raise ValueError(f'`{key}` is for kind "{kind}", which `kinds` leaves out')
        return self


class Clip(_Transform):
    """Overdrive by so many decibels."""

    p: Share = 0.05
    drive_db: Annotated[Range, _between(0, 40)] = (3.0, 12.0)


class Band(_Transform):
    """Band limits in hertz."""

    p: Share = 0.1
    low_hz: Annotated[Range, _between(0, 2000)] = (0.0, 200.0)
    high_hz: Annotated[Range, _between(1000, 8000)] = (3500.0, 7500.0)

    @pydantic.model_validator(mode="after")
    def _holds_something(self) -> "Band":
        if self.low_hz[1] >= self.high_hz[0]:
            raise ValueError(
                f"`low_hz` may reach {self.low_hz[1]:g}, which must be below `high_hz`, {self.high_hz[0]:g}"
            )
        return self


class Telephone(_Transform):
    """Telephone band, 8 bits by mu-law."""

    p: Share = 0.1
    mu_law: bool = True


class Code(_Transform):
    """One of `formats` at `kbps`."""

    p: Share = 0.1
    formats: Annotated[tuple[Codec, ...], pydantic.BeforeValidator(_listed), pydantic.Field(min_length=1)] = (
        "opus",
        "mp3",
    )
    kbps: Annotated[Range, _between(6, 256)] = (12.0, 48.0)


class Gain(_Transform):
    """Louder or quieter, never into clipping."""

    p: Share = 0.5
    db: Annotated[Range, _between(-40, 40)] = (-10.0, 6.0)


class Transforms(pydantic.BaseModel):
    """The tables a plan may hold, in the order they are applied: voice, room, noise, channel, level."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    say: Say | None = None
    speed: Speed | None = None
    tempo: Tempo | None = None
    pitch: Pitch | None = None
    formants: Formants | None = None
    contour: Contour | None = None
    rhythm: Rhythm | None = None
    room: Room | None = None
    noise: Noise | None = None
    clip: Clip | None = None
    band: Band | None = None
    telephone: Telephone | None = None
    codec: Code | None = None
    gain: Gain | None = None


# Without `say`, which costs people what it gives synthetic accents: docs/augment.md, "Does it help?".
DEFAULT: Mapping[str, Mapping[str, Any]] = {
    name: {} for name in ("tempo", "pitch", "formants", "room", "noise", "telephone", "gain")
}


def check(tables: Mapping[str, Any], *, where: str = "augment") -> Transforms:
    """The settings of a plan, whole: {transform: {setting: value}} with defaults filled in.

    Raises:
        InputError: unknown transforms or settings, or values out of bounds; all are named.
    """
    try:
        return Transforms.model_validate(dict(tables))
    except pydantic.ValidationError as error:
        faults = [_fault(fault, where) for fault in error.errors()]
        raise InputError("; ".join(faults)) from error


def check_voices(table: Mapping[str, Any]) -> Voices:
    """The settings of `[synth.voices]`, whole.

    Raises:
        InputError: unknown settings, or values out of bounds; all are named.
    """
    try:
        return Voices.model_validate(dict(table))
    except pydantic.ValidationError as error:
        raise InputError("; ".join(_fault(fault, "synth.voices") for fault in error.errors())) from error


def check_condition(tables: Mapping[str, Any], *, name: str) -> Transforms:
    """As `check`, for a fixed test condition: every transform named happens unless its `p` says otherwise.

    Raises:
        InputError: as for `check`, and when the condition names no transform.
    """
    if not tables:
        raise InputError(f"conditions.{name}: names no transform; use some of {', '.join(Transforms.model_fields)}")
    always = {key: {"p": 1.0, **table} if isinstance(table, Mapping) else table for key, table in tables.items()}
    return check(always, where=f"conditions.{name}")


def _fault(fault: Any, where: str) -> str:
    place = ".".join([where, *map(str, fault["loc"])])
    if fault["type"] == "extra_forbidden":
        known = Transforms.model_fields
        if len(fault["loc"]) == 1 and where != "synth.voices":
            return f"{place}: there is no such transform; known are {', '.join(known)}"
        return f"{place}: there is no such setting"
    return f"{place}: {fault['msg'].removeprefix('Value error, ')} (got {fault['input']!r})"
