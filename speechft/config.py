"""Pipeline files: TOML read by the standard library, checked whole by pydantic, every fault named at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from speechft.errors import InputError

Share = Annotated[float, pydantic.Field(ge=0.0, le=1.0)]
Positive = Annotated[int, pydantic.Field(ge=1)]
LeakKind = Literal["speaker", "text", "near_text", "audio", "segment"]
Strategy = Literal["prompt", "head", "lora", "upper", "decoder", "progressive", "full", "scratch"]


class _Table(pydantic.BaseModel):
    """A table in which an unknown key is an error."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Model(_Table):
    """The Whisper to adapt: `nano`, a hub id, or a directory."""

    base: str = "nano"
    revision: str | None = None
    language: str | None = "en"
    task: Literal["transcribe", "translate"] = "transcribe"


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Manifests = Annotated[tuple[Path, ...], pydantic.BeforeValidator(_listed)]


class Data(_Table):
    """Manifests by role, and what stops a run before it starts."""

    train: Manifests = ()
    dev: Manifests = ()
    test: Manifests = ()
    general: Manifests = ()
    terms: Path | None = None
    train_share: Annotated[float, pydantic.Field(gt=0.0, le=1.0)] = 1.0
    split_by: Literal["speaker", "recording", "text"] | None = None
    general_dev_share: Annotated[float, pydantic.Field(gt=0.0, le=0.5)] = 0.3
    max_rejected_share: Share = 0.05
    allow_leaks: tuple[LeakKind, ...] = ()


class Synth(_Table):
    """Training rows by synthetic voices, of sentences and of the terms of `data.terms` in templates.

    `voices` is handed on to `augment.settings.Voices`. Where nothing recorded is named, dev and test rows are spoken
    too, by other voices in other sentences. Each term gets `per_term` sentences, by default more of them the shorter
    the list (`augment.script.default_per_term`). `replay` is general text, spoken for replay: it belongs to general
    speech.
    """

    sentences: Manifests = ()
    replay: Manifests = ()
    templates: Path | None = None
    per_term: Annotated[int, pydantic.Field(ge=0, le=1000)] | None = None
    max_failed_share: Share = 0.05
    voices: dict[str, Any] = {}
    seed: int = 1


class Augment(pydantic.BaseModel):
    """How many views, and a table per transform (`[augment.noise]`, ...), handed on to `augment.plan`.

    `balance_by` names a label, such as accent: rows of its rarer values get more views.
    """

    model_config = pydantic.ConfigDict(extra="allow", frozen=True)
    views: Annotated[int, pydantic.Field(ge=0, le=100)] = 2
    balance_by: str | None = None
    seed: int = 1

    @pydantic.model_validator(mode="after")
    def _tables_only(self) -> Augment:
        wrong = [key for key, value in (self.model_extra or {}).items() if not isinstance(value, dict)]
        if wrong:
            raise ValueError(f"unknown setting(s) {', '.join(wrong)}: a transform is a table such as [augment.noise]")
        return self

    @property
    def transforms(self) -> dict[str, dict[str, Any]]:
        """The tables under [augment] by the name of their transform."""
        return dict(self.model_extra or {})


class Encode(_Table):
    """How clips share windows, and how states are kept."""

    pack: bool = True
    gap_s: tuple[float, float] = (0.1, 0.8)
    single_share: Share = 0.5  # measured: docs/log.md, 2026-11-24
    dtype: Literal["float16", "bfloat16"] = "float16"

    @pydantic.field_validator("gap_s")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0.0 <= value[0] <= value[1] <= 5.0:
            raise ValueError(f"must be two numbers of seconds, smaller first, within 0 to 5, got {list(value)}")
        return value


class Finetune(_Table):
    """What trains, for how long, and what keeps general speech."""

    strategy: Strategy = "decoder"
    epochs: Positive = 5
    learning_rate: Annotated[float, pydantic.Field(gt=0.0, le=0.01)] | None = None
    batch_clips: Annotated[int, pydantic.Field(ge=1, le=65_536)] | None = None
    replay_share: Annotated[float, pydantic.Field(ge=0.0, le=0.9)] = 0.0
    distil: Annotated[float, pydantic.Field(ge=0.0)] = 0.0
    l2sp: Annotated[float, pydantic.Field(ge=0.0)] = 0.0
    alphas: tuple[Share, ...] = (0.5, 0.625, 0.75, 0.875, 1.0)
    forgetting_budget: Share | None = None
    patience: Positive = 3
    timestamp_share: Share = 0.15
    previous_share: Share | None = None
    time_masks: Annotated[int, pydantic.Field(ge=0, le=20)] = 0
    time_mask_s: Annotated[float, pydantic.Field(ge=0.0, le=5.0)] = 0.5
    channel_masks: Annotated[int, pydantic.Field(ge=0, le=20)] = 0
    channel_mask_share: Share = 0.1
    upper_layers: Positive = 2
    encoder_layers: Annotated[int, pydantic.Field(ge=0)] = 0
    lora_rank: Annotated[int, pydantic.Field(ge=1, le=1024)] = 16
    lora_encoder: bool = False
    thaw: Literal["epoch", "stall"] = "epoch"
    seed: int = 1

    @property
    def blends(self) -> tuple[float, ...]:
        """The alphas that are tried; under `scratch` the trained weights alone, as a mean with others is no model."""
        return (1.0,) if self.strategy == "scratch" or not self.alphas else self.alphas

    @pydantic.model_validator(mode="after")
    def _possible(self) -> Finetune:
        if self.strategy == "lora" and self.l2sp:
            raise ValueError("l2sp pulls the model's own weights back, which lora leaves as they are: leave it out")
        if self.distil and not self.replay_share:
            raise ValueError("distil keeps to the base on replayed speech: give a replay_share, and general speech")
        if self.strategy == "prompt" and (self.time_masks or self.channel_masks):
            raise ValueError("time_masks and channel_masks do nothing under prompt: leave them out")
        if self.strategy == "scratch" and (self.l2sp or self.distil):
            raise ValueError("l2sp and distil keep to the base, of which scratch takes no weights: leave them out")
        return self


class Decode(_Table):
    """How hypotheses are made, before and after alike."""

    batch: Positive = 32
    beam: Annotated[int, pydantic.Field(ge=1, le=10)] = 1


class Score(_Table):
    """How hypotheses are counted."""

    normaliser: Literal["raw", "whisper-english", "whisper-basic", "jargon-safe", "letters"] = "jargon-safe"
    smallest_gain: Annotated[float, pydantic.Field(gt=0.0, lt=1.0)] | None = None
    resamples: Annotated[int, pydantic.Field(ge=100, le=1_000_000)] = 10_000
    seed: Annotated[int, pydantic.Field(ge=0)] = 1


class Pipeline(_Table):
    """One pipeline file."""

    model: Model = Model()
    data: Data
    synth: Synth | None = None
    augment: Augment = Augment()
    conditions: dict[str, dict[str, dict[str, Any]]] = {}
    encode: Encode = Encode()
    finetune: Finetune = Finetune()
    decode: Decode = Decode()
    score: Score = Score()

    @pydantic.field_validator("conditions")
    @classmethod
    def _condition_names(cls, tables: dict[str, Any]) -> dict[str, Any]:
        for name in tables:  # part of ids (`row#name`) and of paths
            if not re.fullmatch(r"\w[\w.-]*", name) or re.fullmatch(r"clean|view\d*", name):
                raise ValueError(
                    f"{name!r} cannot be a condition's name: write letters, digits, `-`, `_` and `.`, and neither "
                    "`clean` nor `view1`, which rows and views are called"
                )
        return tables

    @pydantic.model_validator(mode="after")
    def _something_to_hear(self) -> Pipeline:
        missing = [f"data.{role}" for role in ("train", "test") if not getattr(self.data, role)]
        if missing and self.synth is None:
            raise ValueError(f"{' and '.join(missing)} missing: name manifests, or speak a term list with [synth]")
        if self.synth is not None and not (self.synth.sentences or self.synth.replay) and self.data.terms is None:
            raise ValueError("synth: nothing to say; name a term list in data.terms, or synth.sentences")
        return self


def load(path: str | Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read a pipeline file, apply `a.b=c` overrides, and check everything.

    Relative paths are relative to the working directory, as make runs at the top of the project.

    Raises:
        InputError: the file is missing or not TOML, an override is malformed, or settings are wrong (all named).
    """
    path = Path(path)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a pipeline file, see pipelines/") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is not valid TOML ({error})") from error
    for override in overrides:
        _override(tree, override)
    try:
        return Pipeline.model_validate(tree)
    except pydantic.ValidationError as error:
        faults = "; ".join(_fault(entry) for entry in error.errors())
        raise InputError(f"{path}: {faults}") from error


def _override(tree: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    *tables, key = name.strip().split(".")
    if not equals or not tables:
        raise InputError(
            f"--set {override}: write a table, a key and a value, such as finetune.epochs=3; within one, SET= of make "
            "takes no blanks"
        )
    for table in tables:
        tree = tree.setdefault(table, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override}: {table} is not a table")
    tree[key] = _value(value.strip())


def _value(text: str) -> Any:
    """TOML where the text is TOML (numbers, booleans, lists, quoted text), else the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _fault(entry: Any) -> str:
    name = ".".join(str(part) for part in entry["loc"])
    if not name:
        return str(entry["msg"].removeprefix("Value error, "))
    if entry["type"] == "extra_forbidden":
        return f"unknown setting {name}"
    if entry["type"] == "missing":
        return f"{name} is missing"
    if entry["type"] in ("tuple_type", "list_type"):
        return f'{name}: write a list, such as ["a","b"] or [0.1,0.8], got {entry.get("input")!r}'
    message = entry["msg"].removeprefix("Value error, ")
    given = entry.get("input")
    shown = f", got {given!r}" if isinstance(given, str | int | float | bool) and "got" not in message else ""
    return f"{name}: {message[0].lower()}{message[1:]}{shown}"
