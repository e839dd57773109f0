"""A run: a pipeline and the folder its results live in, and what every stage asks of the two."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft import files, manifest
from speechft.config import Pipeline
from speechft.manifest import Utterance

if TYPE_CHECKING:
    from speechft.whisper.load import Device, Whisper

log = logging.getLogger(__name__)

FORMATS = {"ingest": 1, "augment": 2, "synth": 1, "encode": 1, "finetune": 1, "transcribe": 1, "score": 3, "report": 3}
CHOOSING = ("dev", "general_dev")  # roles that may decide something
REPORTED = ("test", "general_test")  # roles that decide nothing


@dataclass(frozen=True)
class Run:
    """A pipeline and the folder its results live in."""

    pipeline: Pipeline
    dir: Path

    @property
    def states(self) -> Path:
        return self.dir.parent / "states"

    @cached_property
    def base_files(self) -> list[Path]:
        """The base model's directory when it is local: its files are inputs."""
        base = self.pipeline.model.base
        if base == "nano":
            return [Path(__file__).resolve().parent / "models" / "nano"]
        return [Path(base)] if Path(base).is_dir() else []

    def table(self, *names: str) -> dict[str, Any]:
        """Settings of some tables of the pipeline, as JSON values."""
        tree = self.pipeline.model_dump(mode="json")
        return {name: tree[name] for name in names}

    def stage(self, name: str, *, settings: dict[str, Any], inputs: list[Path], seed: int | None = None) -> files.Stage:
        return files.Stage(self.dir, name, settings=settings, inputs=inputs, format=FORMATS[name], seed=seed)

    def rows(self, role: str) -> list[Utterance]:
        """A role's rows after ingest; none when the role was not named."""
        path = self.dir / "ingest" / f"{role}.jsonl"
        return manifest.read(path) if path.exists() else []

    def evaluated(self) -> dict[str, list[Utterance]]:
        """Rows that are decoded: those that choose, and those that are reported (test with its conditions)."""
        roles = {role: self.rows(role) for role in (*CHOOSING, *REPORTED)}
        roles["test"] += manifest.read(self.dir / "augment" / "conditions.jsonl")
        return {role: rows for role, rows in roles.items() if rows}

    @property
    def from_states(self) -> bool:
        """Whether the strategy leaves the encoder alone, so that kept states serve for training and for decoding."""
        settings = self.pipeline.finetune
        reaches_encoder = {"full": True, "scratch": True, "progressive": settings.encoder_layers > 0}
        return not reaches_encoder.get(settings.strategy, settings.strategy == "lora" and settings.lora_encoder)

    def load_base(self) -> Whisper:
        """The model to adapt, as it was before."""
        from speechft.whisper import load

        model = self.pipeline.model
        return load.load(model.base, revision=model.revision, language=model.language, task=model.task)


def told_device() -> Device:
    """Where this machine computes; told in the log."""
    from speechft.whisper import load

    chosen = load.choose_device()
    log.info("device: %s", chosen.label)
    return chosen
