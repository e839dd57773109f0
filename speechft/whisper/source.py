"""Where a model's files are: the shipped one, a directory, or the hub. Without torch, so that it can be asked early."""

from __future__ import annotations

import json
from pathlib import Path

from speechft.errors import InputError

NANO = Path(__file__).resolve().parent.parent / "models" / "nano"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


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
    if base.startswith((".", "/", "~")) or base.count("/") != 1:
        raise InputError(f"model.base = {base!r}: there is no such directory; give `nano`, a hub id or a directory")
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(base, revision=revision, allow_patterns=["*.json", "*.txt", "*.safetensors"])
    except Exception as error:  # the hub's client raises many unrelated types for "not reachable"
        raise InputError(
            f"model.base = {base!r} (revision {revision or 'main'}) could not be fetched from the model hub and is "
            f"not in its local cache ({type(error).__name__}); use model.base=nano, or a local directory"
        ) from error
    check_directory(Path(folder))
    return Path(folder), Path(folder).name


def check_directory(path: Path) -> None:
    """Say whether a directory can hold a Whisper, from its files' names and its config.

    Raises:
        InputError: it has no config, no weights, or is another model.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"{path}: holds no config.json; a model directory has config, weights and tokenizer files")
    if not any((path / name).is_file() for name in WEIGHT_FILES):
        raise InputError(f"{path}: holds no weights ({' or '.join(WEIGHT_FILES[:2])}); copy the whole model directory")
    try:
        held = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}/config.json: is not valid JSON ({error})") from error
    kind = held.get("model_type") if isinstance(held, dict) else type(held).__name__
    if kind != "whisper":
        raise InputError(f"{path}: is a {kind!r} model; speechft adapts Whisper models")
