"""Make an untrained Whisper of nano's size, with a byte-level BPE learned from generated everyday English.

python scripts/make_base_model.py --out runs/base-init
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import everyday_grammar
import tokenizers
import torch
import transformers
from make_base_data import demo_terms

TEXT_TOKENS = 1024  # byte-level BPE: 256 bytes and 768 merges
SPECIAL = [
    "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>",
    "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
]  # fmt: skip
TIMESTAMPS = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]  # 0.00 to 30.00


def make_tokenizer(texts: list[str]) -> transformers.WhisperTokenizer:
    """Byte-level BPE with Whisper's special tokens in their roles, text tokens first as in the released models."""
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator((" " + text for text in texts), vocab_size=TEXT_TOKENS, special_tokens=[])
    model = __import__("json").loads(bpe.to_str())["model"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    vocab = dict(model["vocab"]) | {"<|endoftext|>": TEXT_TOKENS}
    tokenizer = transformers.WhisperTokenizer(vocab=vocab, merges=merges)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    tokenizer.add_tokens([tokenizers.AddedToken(t, special=False, normalized=False) for t in TIMESTAMPS])
    for offset, token in enumerate(SPECIAL + TIMESTAMPS):
        assert tokenizer.convert_tokens_to_ids(token) == TEXT_TOKENS + offset, token
    return tokenizer


def make_model(tokenizer: transformers.WhisperTokenizer, *, seed: int) -> transformers.WhisperForConditionalGeneration:
    ids: Any = tokenizer.convert_tokens_to_ids
    end = ids("<|endoftext|>")
    config = transformers.WhisperConfig(
        vocab_size=TEXT_TOKENS + len(SPECIAL) + len(TIMESTAMPS),
        num_mel_bins=80,
        d_model=192,
        encoder_layers=4,
        encoder_attention_heads=3,
        encoder_ffn_dim=768,
        decoder_layers=4,
        decoder_attention_heads=3,
        decoder_ffn_dim=768,
        max_source_positions=1500,
        max_target_positions=448,
        dropout=0.0,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=ids("<|startoftranscript|>"),
        begin_suppress_tokens=None,
        suppress_tokens=None,
    )
    torch.manual_seed(seed)
    model = transformers.WhisperForConditionalGeneration(config)
    generation = transformers.GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        max_initial_timestamp_index=50,
        is_multilingual=False,
        return_timestamps=False,
        max_length=448,
        begin_suppress_tokens=[tokenizer.encode(" ", add_special_tokens=False)[0], config.eos_token_id],
        suppress_tokens=[],
        alignment_heads=[[layer, head] for layer in (2, 3) for head in range(3)],
    )
    model.generation_config = generation
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/base-init"))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    avoid = demo_terms(Path("manifests/clinical/terms.jsonl"))
    tokenizer = make_tokenizer(everyday_grammar.sentences(20_000, seed=options.seed, avoid=avoid))
    model = make_model(tokenizer, seed=options.seed)
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(options.out)
    extractor.save_pretrained(options.out)
    model.save_pretrained(options.out)
    tokenizer.save_vocabulary(str(options.out))
    count = sum(p.numel() for p in model.parameters())
    print(
        f"{options.out}: {count:,} parameters, {2 * count / 1e6:.1f} MB in fp16, vocabulary {model.config.vocab_size}"
    )


if __name__ == "__main__":
    main()
