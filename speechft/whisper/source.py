"""Where a model's files are: the shipped one, a directory, or the hub. Without torch, so that it can be asked early."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speechft.errors import InputError

NANO = Path(__file__).resolve().parent.parent / "models" / "nano"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
MULTILINGUAL_VOCABULARY = 51865  # the reference's own rule: vocabularies of at least this size have languages


def find(base: str, *, revision: str | None = None) -> tuple[Path, str | None]:
    """The local directory of a base model, fetched from the hub if it is a hub id, and its exact revision.

    Raises:
        InputError: no such directory, a directory without weights, or the hub cannot be reached.
    """
    if base == "nano":
        return NANO, None
    path = Path(base).expanduser()
    if path.is_dir():
        check_directory(path)
        return path, None
    if not is_hub_id(base):
        close = f"openai/{base if base.startswith('whisper-') else f'whisper-{base}'}"
        known = f", such as {close}," if "/" not in base else ""
        raise InputError(
            f"model.base = {base!r}: there is no such directory; give `nano`, a hub id{known} or a directory"
        )
    from huggingface_hub import snapshot_download

    files = ["*.json", "*.txt", "*.safetensors"]
    try:
        # Large-v3's repository also holds its weights in float32, twice the size, which nothing here reads.
        folder = snapshot_download(base, revision=revision, allow_patterns=files, ignore_patterns=["*fp32*"])
        if not _has_weights(Path(folder)):  # from before safetensors
            folder = snapshot_download(base, revision=revision, allow_patterns=[*files, "pytorch_model*.bin"])
    except Exception as error:  # the hub's client raises many unrelated types for "not reachable"
        raise InputError(
            f"model.base = {base!r} (revision {revision or 'main'}) could not be fetched from the model hub and is "
            f"not in its local cache ({type(error).__name__}); use model.base=nano, or a local directory"
        ) from error
    check_directory(Path(folder))
    return Path(folder), Path(folder).name


def is_hub_id(base: str) -> bool:
    """Whether it can only be a model on the hub: an owner and a name."""
    return not base.startswith((".", "/", "~")) and base.count("/") == 1


def check_directory(path: Path) -> None:
    """Say whether a directory can hold a Whisper, from its files' names and its config.

    Raises:
        InputError: it has no config, no weights, no tokenizer, or is another model.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: holds no config.json; a model directory has config, weights and tokenizer files")
    if not _has_weights(path):
        raise InputError(f"{path}: holds no weights ({' or '.join(WEIGHT_FILES[:2])}); copy the whole model directory")
    if (kind := _read(path / "config.json").get("model_type")) != "whisper":
        raise InputError(f"{path}: is a {kind!r} model; speechft adapts Whisper models")
    if not any((path / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(f"{path}: holds no tokenizer ({' or '.join(TOKENIZER_FILES)}); copy the whole model directory")


def is_multilingual(path: Path) -> bool:
    """From the generation config when it says so, else by the reference's rule of vocabulary size."""
    generation = path / "generation_config.json"
    stated = _read(generation).get("is_multilingual") if generation.is_file() else None
    if stated is not None:
        return bool(stated)
    return int(_read(path / "config.json").get("vocab_size", MULTILINGUAL_VOCABULARY)) >= MULTILINGUAL_VOCABULARY


def check_language(path: Path, base: str, *, language: str | None, task: str | None) -> None:
    """Refuse what a model cannot do: an English-only one's prompt has no place for a language or a task.

    Raises:
        InputError: an English-only model is asked for another language than English or another task than
            transcribing; or the model's tokenizer has no token of the language or the task.
    """
    if is_multilingual(path):
        found = [path / name for name in (*TOKENIZER_FILES, "added_tokens.json") if (path / name).is_file()]
        held = "".join(file.read_text(encoding="utf-8") for file in found)
        for token in filter(None, (language, task)):
            if f'"<|{token}|>"' not in held:
                raise InputError(
                    f"{base}: the model's tokenizer has no token <|{token}|>: check model.language and model.task "
                    "(languages are given by code, such as `de`)"
                )
        return
    for name, asked, only in (("language", language, "en"), ("task", task, "transcribe")):
        if (asked or only) != only:
            raise InputError(
                f"{base} is an English-only model, {name} {asked!r} cannot be asked of it: leave it out, "
                "or take a multilingual model"
            )


def _has_weights(path: Path) -> bool:
    return any((path / name).is_file() for name in WEIGHT_FILES)


def _read(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(held, dict):
        raise InputError(f"{path}: holds a {type(held).__name__}, not an object; copy the model directory again")
    return held
