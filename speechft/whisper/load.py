"""Load any Whisper (the shipped `nano`, a hub id or a directory), choose where it runs, and save one so that it loads.

What differs between checkpoints (mel bins, vocabulary, start tokens, positions) is read from the checkpoint.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from speechft.errors import InputError
from speechft.whisper import memory, source, tokens

logger = logging.getLogger(__name__)

# Steps have ever other shapes, and oneDNN and PyTorch's wrapper of it each keep 1,024 compiled products of them: 0.3 GB
# and, after 48 steps of tiny in bf16, 0.4 GB, and no time gained (docs/log.md, 2026-11-27).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
os.environ.setdefault("LRU_CACHE_CAPACITY", "1")

PROMPT_FILE = "prompt.txt"


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where and how precisely things run, and why."""

    name: str
    precision: torch.dtype
    reason: str

    @property
    def label(self) -> str:
        """Name, precision and why, for the log and the stage's record."""
        return f"{self.name}, {str(self.precision).removeprefix('torch.')} ({self.reason})"

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Mixed precision where the device has it; float32 weights stay float32."""
        if self.precision == torch.float32:
            yield
        else:
            with torch.autocast(self.name, dtype=self.precision):
                yield


def choose_device() -> Device:
    """CUDA where it is (bf16 where the card has it), else the CPU (bf16 where the processor multiplies in it)."""
    if torch.cuda.is_available():
        card = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Device(name="cuda", precision=torch.bfloat16, reason=f"{card} has bf16")
        return Device(name="cuda", precision=torch.float16, reason=f"{card} has no bf16")
    for flag in ("amx_bf16", "avx512_bf16"):
        if processor_has(flag):
            return Device(name="cpu", precision=torch.bfloat16, reason=f"no CUDA; the processor has {flag}")
    return Device(name="cpu", precision=torch.float32, reason="no CUDA, no bf16 in the processor")


@functools.cache
def processor_has(flag: str) -> bool:
    """Say whether the processor has a feature, by Linux's name for it."""
    with contextlib.suppress(OSError):
        return flag in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    return False


def told_device() -> Device:
    """The device chosen, told in the log."""
    chosen = choose_device()
    logger.info("device: %s", chosen.label)
    return chosen


@dataclass(kw_only=True)
class Whisper:
    """A model with what is needed to feed it and to read it."""

    model: Any  # transformers.WhisperForConditionalGeneration, float32
    tokenizer: Any
    ids: tokens.Layout
    name: str
    revision: str | None
    source: Path | None
    language: str | None
    task: str | None
    prompt: str | None = None  # previous text given with every window, from prompt.txt (strategy `prompt`)
    trained: bool = False  # whether its weights may differ from the base's

    @property
    def multilingual(self) -> bool:
        """Whether its prompt names a language and a task."""
        return len(self.ids.prompt) > 1

    @property
    def n_mels(self) -> int:
        """Mel bins that it hears: 80, or 128 from large-v3 on."""
        return int(self.model.config.num_mel_bins)


def load(base: str, *, revision: str | None = None, language: str | None = None, task: str | None = None) -> Whisper:
    """Load a Whisper in float32, whatever precision it is stored in.

    Raises:
        InputError: it cannot be found, is not a Whisper, its files are damaged, or it knows only English and is asked
            for more.
    """
    path, found_revision = source.find(base, revision=revision)
    source.check_language(path, base, language=language, task=task)
    try:
        with quiet_transformers():
            found: Any = transformers.WhisperForConditionalGeneration.from_pretrained(
                path, dtype=torch.float32, output_loading_info=True
            )
            model, told = found
            lay_positions_together(model.model.encoder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    except Exception as error:  # of whatever kind a damaged file leads to, in three libraries
        if isinstance(error, ImportError) or memory.is_out_of_memory(error):
            raise
        if type(error).__module__.startswith("safetensors") or "Safetensor" in type(error).__name__:
            raise InputError(f"{path}: the weights are damaged ({error}); copy them again") from error
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: cannot be loaded as a Whisper model ({first}); copy its files again") from error
    _require_whole(path, model, told)
    multilingual = source.is_multilingual(path)
    kept = model.generation_config  # what an adapted model was saved with
    language, task = language or _named(kept, "language"), task or _named(kept, "task")
    ids = tokens.layout(tokenizer, multilingual=multilingual, language=language, task=task)
    _complete(kept, tokenizer, ids, multilingual=multilingual)
    model.eval()
    return Whisper(
        model=model,
        tokenizer=tokenizer,
        ids=ids,
        name=base,
        revision=found_revision,
        source=path,
        language=(language or "en") if multilingual else None,
        task=(task or "transcribe") if multilingual else None,
        prompt=(path / PROMPT_FILE).read_text(encoding="utf-8") if (path / PROMPT_FILE).is_file() else None,
    )


def _complete(config: Any, tokenizer: Any, ids: tokens.Layout, *, multilingual: bool) -> None:
    """Give a generation config what many of 2022 and 2023 lack, and transformers asks for: an adapted model is saved
    with it, and read by others."""
    known = tokenizer.get_vocab()
    marks = {f"<|{code}|>": known[f"<|{code}|>"] for code in LANGUAGES if f"<|{code}|>" in known}
    tasks = {name: known[f"<|{name}|>"] for name in ("transcribe", "translate") if f"<|{name}|>" in known}
    wanted: dict[str, Any] = {"no_timestamps_token_id": ids.no_timestamps, "is_multilingual": multilingual}
    if multilingual:
        wanted |= {"lang_to_id": marks, "task_to_id": tasks}
    for name, value in wanted.items():
        if getattr(config, name, None) is None:
            setattr(config, name, value)
    config._from_model_config = False  # or it would be drawn up again from the model's, without all this


def _require_whole(path: Path, model: Any, told: Mapping[str, Any]) -> None:
    """Refuse weights of which transformers drew some at random, or took some for nothing, without a word.

    Raises:
        InputError: tensors are missing, have no place, or hold values that are not finite.
    """
    missing = sorted(told["missing_keys"])
    surplus = sorted(name for name in told["unexpected_keys"] if ".layers." in name)  # others may be tied, or old
    broken = [name for name, value in model.state_dict().items() if not bool(torch.isfinite(value.sum()))]
    for names, what in (
        (missing, "lack tensors that its config.json asks for"),
        (surplus, "hold tensors that its config.json has no place for"),
        (broken, "hold values that are not finite"),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path}: the weights {what} ({names[0]}{more}); copy the model's files again")


def lay_positions_together(encoder: Any) -> None:
    """Have what an encoder holds of a position lie together in memory: the same values, in less time.

    transformers turns the convolutions' channels and positions by a view, and every sum and norm of every layer then
    reads across memory: up to a tenth of the time of encoding in bf16 on CPU (benchmarks/attention.py), a sixth on a
    GPU (a trial).
    """
    encoder.conv2.register_forward_hook(_in_rows)


def _in_rows(module: Any, inputs: Any, found: torch.Tensor) -> torch.Tensor:
    return found.transpose(1, 2).contiguous().transpose(1, 2)


def _named(config: Any, what: str) -> str | None:
    """A generation config's `language` or `task`, with or without the token's brackets."""
    value = getattr(config, what, None)
    return str(value).removeprefix("<|").removesuffix("|>") if value else None


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Without the library's own progress bars and notices, which say nothing a user can act on."""
    from transformers.utils import logging as library_logging

    verbosity, bars = library_logging.get_verbosity(), library_logging.is_progress_bar_enabled()
    library_logging.set_verbosity_error()
    library_logging.disable_progress_bar()
    try:
        yield
    finally:
        library_logging.set_verbosity(verbosity)
        if bars:
            library_logging.enable_progress_bar()


def encoder_hash(model: Any) -> str:
    """Hex SHA-256 of the encoder's weights: the part of a state's key that says which encoder made it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.model.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def save(whisper: Whisper, out: Path, *, half: bool = False) -> None:
    """Write a model directory that transformers, faster-whisper and openai-whisper's converters can read.

    Writes weights, config, generation config, tokenizer (also vocab.json and merges.txt) and both forms of the
    feature extractor's settings: `processor_config.json`, and `preprocessor_config.json`, without which
    faster-whisper assumes 80 mel bins.
    """
    staging = out.with_name(f".{out.name}.partial")
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    model = whisper.model
    if whisper.multilingual:  # so that whoever loads it need not be told
        model.generation_config.language, model.generation_config.task = whisper.language, whisper.task
    with quiet_transformers():
        if half:
            model = transformers.WhisperForConditionalGeneration(model.config).half()
            model.load_state_dict({k: v.half() for k, v in whisper.model.state_dict().items()})
            model.generation_config = whisper.model.generation_config
        model.save_pretrained(staging)
        extractor = transformers.WhisperFeatureExtractor(feature_size=whisper.n_mels)
        transformers.WhisperProcessor(extractor, whisper.tokenizer).save_pretrained(staging)
        extractor.save_pretrained(staging)
        whisper.tokenizer.save_vocabulary(str(staging))
    if whisper.prompt:
        (staging / PROMPT_FILE).write_text(whisper.prompt, encoding="utf-8")
    for path in staging.iterdir():
        path.chmod(0o644)
    if out.exists():
        shutil.rmtree(out)
    staging.rename(out)


def release_tokens(whisper: Whisper, texts: Iterable[str]) -> list[str]:
    """Take tokens that the given texts need off the generation config's suppression lists.

    The released models suppress `/ # ( ) : _ = > @` and more, so `120/80 mg/dL` can never be written.

    Returns:
        the released tokens, as text, for the report.
    """
    config = whisper.model.generation_config
    needed = {token for text in texts for token in tokens.encode_text(whisper.tokenizer, text)}
    suppressed = list(getattr(config, "suppress_tokens", None) or [])
    released = [token for token in suppressed if token in needed]
    if released:
        config.suppress_tokens = [token for token in suppressed if token not in needed]
    return [whisper.tokenizer.decode([token]).strip() for token in released]
