"""Whisper models with random weights and the real vocabulary, for tests: no hub is needed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
import whisper
import whisper.tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

PUBLISHED = {  # name: d_model, layers, heads, mel bins, vocabulary
    "tiny": (384, 4, 6, 80, 51865),
    "tiny.en": (384, 4, 6, 80, 51864),
    "small": (768, 12, 12, 80, 51865),
    "large-v3": (1280, 32, 20, 128, 51866),
}
LANGUAGES = {51864: 99, 51865: 99, 51866: 100}


@functools.cache
def reference(vocabulary: int, language: str = "en", task: str = "transcribe") -> Any:
    """The reference package's tokenizer for a vocabulary size."""
    return whisper.tokenizer.get_tokenizer(
        vocabulary > 51864, num_languages=LANGUAGES[vocabulary], language=language, task=task
    )


@functools.cache
def tokenizer(vocabulary: int) -> Any:
    """The same vocabulary as transformers' tokenizer, made from the reference package's files."""
    name = "multilingual" if vocabulary > 51864 else "gpt2"
    path = str(Path(whisper.__file__).parent / "assets" / f"{name}.tiktoken")
    vocab, merges = TikTokenConverter(vocab_file=path).extract_vocab_merges_from_model(path)
    specials = sorted(reference(vocabulary).encoding._special_tokens.items(), key=lambda item: item[1])
    made = transformers.WhisperTokenizer(vocab={**vocab, "<|endoftext|>": specials[0][1]}, merges=merges)
    for token, _ in specials[1:]:
        timestamp = token[2].isdigit()
        added = tokenizers.AddedToken(token, special=not timestamp, normalized=False)
        made.add_tokens([added], special_tokens=not timestamp)
    return made


def model(vocabulary: int = 51865, *, d_model: int = 64, layers: int = 2, heads: int = 2, mels: int = 80) -> Any:
    """Random weights; small unless told otherwise."""
    ids = tokenizer(vocabulary).convert_tokens_to_ids
    config = transformers.WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=mels,
        d_model=d_model,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * d_model,
        decoder_ffn_dim=4 * d_model,
        bos_token_id=ids("<|endoftext|>"),
        eos_token_id=ids("<|endoftext|>"),
        pad_token_id=ids("<|endoftext|>"),
        decoder_start_token_id=ids("<|startoftranscript|>"),
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    torch.manual_seed(0)
    made = transformers.WhisperForConditionalGeneration(config)
    made.generation_config = transformers.GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        is_multilingual=vocabulary > 51864,
        return_timestamps=False,
        max_length=448,
        begin_suppress_tokens=[220, config.eos_token_id],
        suppress_tokens=[ids("/"), ids("#"), ids("(")],
    )
    if vocabulary > 51864:  # English-only checkpoints do not have these at all
        made.generation_config.lang_to_id = {f"<|{code}|>": ids(f"<|{code}|>") for code in ("en", "de", "hi")}
        made.generation_config.task_to_id = {task: ids(f"<|{task}|>") for task in ("transcribe", "translate")}
    return made


def save(folder: Path, vocabulary: int = 51865, **shape: int) -> Path:
    """A model directory as a user would have it."""
    made = model(vocabulary, **shape)
    made.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=made.config.num_mel_bins)
    transformers.WhisperProcessor(extractor, tokenizer(vocabulary)).save_pretrained(folder)
    return folder
