"""A run: a pipeline and the folder its results live in, and what every stage asks of the two."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft import files, manifest
from speechft.config import Pipeline
from speechft.manifest import Utterance
from speechft.text import language_code
from speechft.whisper import source

if TYPE_CHECKING:
    from speechft.whisper.load import Whisper

FORMATS = {
    "ingest": 3,
    "augment": 8,
    "conditions": 5,
    "synth": 3,
    "encode": 6,
    "finetune": 3,
    "transcribe": 2,
    "score": 5,
    "report": 5,
}
SOURCED = ("noise", "room")  # transforms that may take sound from folders and manifests, which these keys name
SOURCE_KEYS = frozenset({"from", "babble_from"})
LEARNED = ("train", "general_train")  # roles that may be trained on
CHOOSING = ("dev", "general_dev")  # roles that may decide something
REPORTED = ("test", "general_test")  # roles that decide nothing


log = logging.getLogger(__name__)


def held_by_sources(*transforms: Mapping[str, Any]) -> dict[str, str]:
    """What the record of a stage tells of the files that these tables' sources hold; nothing without sources."""
    values = [
        tables[name].get(key) for tables in transforms for name in SOURCED if name in tables for key in SOURCE_KEYS
    ]
    named = {
        Path(path) for value in values for path in (value if isinstance(value, list) else [value])
        if isinstance(path, str)  # others are refused where transforms are checked
    }  # fmt: skip
    if not named:
        return {}
    from speechft.augment import recordings

    held = (recording.path for path in named if path.exists() for recording, _ in recordings.listing(path)[0])
    return {"sources_hold": manifest.sound_files([*(path for path in named if not path.is_dir()), *held])}


@dataclass(frozen=True)
class Run:
    """A pipeline and the folder its results live in."""

    pipeline: Pipeline
    dir: Path

    @property
    def states(self) -> Path:
        """Where runs of this folder keep encoder states, by key."""
        return self.dir.parent / "states"

    @cached_property
    def base_folder(self) -> Path | None:
        """The base model's directory when it is local."""
        base = self.pipeline.model.base
        folder = source.NANO if base == "nano" else Path(base).expanduser()
        return folder if folder.is_dir() else None

    @cached_property
    def base_files(self) -> list[Path]:
        """The files of a local base model that decide what it does: all but its card."""
        found = self.base_folder.iterdir() if self.base_folder else ()
        return sorted(path for path in found if path.is_file() and path.suffix != ".md")

    @property
    def spoken_language(self) -> str | None:
        """What is spoken in rows that name no language; None where texts are translations, which nobody spoke."""
        model = self.pipeline.model
        return None if model.task == "translate" else model.language or "en"

    def warn_of_other_languages(self, rows: Mapping[str, int]) -> None:
        """Say so where rows name another language than the one that the model is told, before and after."""
        told = self.spoken_language
        others = {code: count for code, count in rows.items() if told and code != language_code(told)}
        if others:
            named = ", ".join(f"{code} {count:,}" for code, count in others.items())
            log.warning(
                "ingest: rows say that they are in another language (%s) than the model is told, which is %s: set "
                "model.language, or every one is learned and transcribed as that", named, told,
            )  # fmt: skip

    def check_ahead(self) -> None:
        """Check what later stages would refuse, before the first spends hours.

        Raises:
            InputError: a transform, a condition, the term list, or the base model's directory, language or task cannot
                be used.
        """
        from speechft.score.terms import read_terms

        if self.pipeline.data.terms:
            read_terms(self.pipeline.data.terms)
        asked = self.pipeline.model
        if self.base_folder:
            source.check_directory(self.base_folder)
            source.check_language(self.base_folder, asked.base, language=asked.language, task=asked.task)
        self.check_transforms()

    def check_transforms(self) -> None:
        """Check the transforms of views and conditions.

        Raises:
            InputError: one cannot be used, or would train on what a condition tests.
        """
        from speechft.augment import checks
        from speechft.augment.settings import check_voices

        data, synth = self.pipeline.data, self.pipeline.synth
        checks.check(
            self.pipeline.augment.transforms, self.pipeline.conditions, language=self.spoken_language,
            data={"train": data.train, "dev": data.dev, "test": data.test},
            synth_voices=check_voices(synth.voices) if synth else None, spoken=self.spoken_roles,
        )  # fmt: skip

    def says_in(self, tables: Collection[str]) -> dict[str, str | None]:
        """What the record of a stage tells of the language: nothing where no text is said again."""
        return {"language": self.spoken_language} if "say" in tables else {}

    @property
    def spoken_roles(self) -> tuple[str, ...]:
        """Roles that [synth] speaks: train, those of dev and test where nothing recorded is named, and replay."""
        data, synth = self.pipeline.data, self.pipeline.synth
        if synth is None:
            return ()
        dev = () if data.dev or data.train else ("dev",)
        return ("train", *dev, *(() if data.test else ("test",)), *(("general_train",) if synth.replay else ()))

    @property
    def made_with(self) -> str:
        """What the run was made with so far, for whoever comes back to it without its settings."""
        record = self.dir / "ingest" / files.STAGE_FILE
        if not record.exists():
            return ""
        data = files.read_json(record)["settings"]["data"]
        named = ((role, data[role]) for role in ("train", "dev", "test", "general") if data[role])
        return f"; {self.dir} was made with " + " ".join(f"data.{role}={','.join(paths)}" for role, paths in named)

    def table(self, *names: str) -> dict[str, Any]:
        """Settings of some tables of the pipeline, as JSON values."""
        tree = self.pipeline.model_dump(mode="json")
        return {name: tree[name] for name in names}

    def stage(self, name: str, *, settings: dict[str, Any], inputs: list[Path], seed: int | None = None) -> files.Stage:
        """A stage's folder and record; it is up to date when settings and inputs are those of the record."""
        return files.Stage(self.dir, name, settings=settings, inputs=inputs, format=FORMATS[name], seed=seed)

    def rows(self, role: str) -> list[Utterance]:
        """A role's rows after ingest; none when the role was not named."""
        path = self.dir / "ingest" / f"{role}.jsonl"
        return manifest.read(path) if path.exists() else []

    def each_row(self, role: str) -> Iterator[Utterance]:
        """As `rows`, one at a time."""
        path = self.dir / "ingest" / f"{role}.jsonl"
        return manifest.each(path) if path.exists() else iter(())

    def kept_apart(self, tables: Mapping[str, Any], *roles: str) -> list[Path]:
        """Files of the rows whose sound the noise sources of these tables must not bring; none without sources."""
        if not SOURCE_KEYS & set(tables.get("noise") or {}):
            return []
        return [path for role in roles if (path := self.dir / "ingest" / f"{role}.jsonl").exists()]

    def training_sources(self) -> dict[str, dict[str, Any]]:
        """What conditions with sources of their own must not share with training's views: the sources of these."""
        conditions = [tables.get(name) or {} for tables in self.pipeline.conditions.values() for name in SOURCED]
        training = {name: self.pipeline.augment.transforms.get(name) or {} for name in SOURCED}
        named = {
            name: {key: value for key, value in table.items() if key in SOURCE_KEYS} for name, table in training.items()
        }
        if not any(SOURCE_KEYS & set(table) for table in conditions) or not any(named.values()):
            return {}
        return {"training_sources": named}

    def evaluated(self, *roles: str) -> dict[str, list[Utterance]]:
        """Rows that are decoded, by role; the test set with its conditions."""
        found = {role: self.rows(role) for role in roles}
        if "test" in found:
            found["test"] += manifest.read(self.dir / "conditions" / "rows.jsonl")
        return {role: rows for role, rows in found.items() if rows}

    def evaluated_files(self, *roles: str) -> list[Path]:
        """The files that `evaluated` reads."""
        paths = [self.dir / "ingest" / f"{role}.jsonl" for role in roles]
        if "test" in roles:
            paths.append(self.dir / "conditions" / "rows.jsonl")
        return [path for path in paths if path.exists()]

    @property
    def learns_from(self) -> str:
        """What training reads: kept `states`, `audio` where the encoder changes, or nothing at all."""
        settings = self.pipeline.finetune
        if settings.strategy == "prompt":
            return "nothing"
        changes_encoder = {
            "full": True, "scratch": True, "progressive": settings.encoder_layers > 0, "lora": settings.lora_encoder,
        }  # fmt: skip
        return "audio" if changes_encoder.get(settings.strategy) else "states"

    @property
    def keeps_encoder(self) -> bool:
        """Whether the strategy leaves the encoder alone, so that the base's kept states serve for decoding after."""
        return self.learns_from in ("states", "nothing")

    def stores(self) -> tuple[str, ...]:
        """Names of the stores of states: what chooses and what is reported apart, so that a change of test conditions
        leaves training alone. An encoder that changes chooses by what it makes itself."""
        kept = {
            "states": ("train", "choosing", "reported"),
            "nothing": ("choosing", "reported"),
            "audio": ("reported",),
        }
        return kept[self.learns_from]

    def store(self, name: str) -> dict[str, Any]:
        """What `encode` wrote of a store: `{key, count, gb}`, and the rows' `ids` where each is a window."""
        found: dict[str, Any] = files.read_json(self.dir / "encode" / f"{name}.json")
        return found

    def load_base(self) -> Whisper:
        """The model to adapt, as it was before."""
        from speechft.whisper import load

        model = self.pipeline.model
        encoded = self.dir / "encode" / files.STAGE_FILE  # without a pinned revision, the one whose states were kept
        revision = model.revision or (files.read_json(encoded).get("revision") if encoded.exists() else None)
        return load.load(model.base, revision=revision, language=model.language, task=model.task)
