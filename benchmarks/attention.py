"""Encoder on CPU in bf16: PyTorch's attention, in blocks, and windows side by side, in milliseconds a window; errors.

    python benchmarks/attention.py

The encoder is random-weight Whisper tiny by its published dimensions; the error is that of its states against float32.
Side by side, each thread encodes windows of its own, log-mel from 30 s of samples included, with PyTorch's attention;
beside it, the same from one thread that makes log-mels while all threads share a window's operators.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechft.whisper import attention, windows

WINDOWS = 4
ROUNDS = 12


def milliseconds(encode: Callable[[], object], *, times: int) -> float:
    """Median over some passes, per window."""
    encode()
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        encode()
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken) / WINDOWS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    torch.manual_seed(1)
    shape = WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)
    encoder = WhisperEncoder._from_config(shape, attn_implementation="sdpa").eval()
    features = torch.randn(WINDOWS, 80, 3000)
    print(
        "| threads | PyTorch's, ms | in blocks, ms | error of PyTorch's | error in blocks | shared, ms "
        "| side by side, ms |"
    )
    print("| --: | --: | --: | --: | --: | --: | --: |")
    for threads in options.threads:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            exact = encoder(features).last_hidden_state
            taken, errors = [], []
            for blocked in (False, True):
                with torch.autocast("cpu", torch.bfloat16), attention.in_blocks(encoder, wanted=blocked):
                    states = encoder(features).last_hidden_state.float()
                    taken.append(milliseconds(lambda: encoder(features), times=options.times))
                errors.append(float((states - exact).norm() / exact.norm()))
        apart = [from_samples(encoder, readers=1, threads=threads), from_samples(encoder, readers=threads, threads=1)]
        print(
            f"| {threads} | {taken[0]:.0f} | {taken[1]:.0f} | {errors[0]:.4f} | {errors[1]:.4f} | "
            f"{apart[0]:.0f} | {apart[1]:.0f} |"
        )


def from_samples(encoder: WhisperEncoder, *, readers: int, threads: int) -> float:
    """Milliseconds a window from samples: one reader ahead of an encoder of all threads, or readers that encode too."""
    samples = np.random.default_rng(1).normal(0, 0.1, windows.N_SAMPLES).astype(np.float32)

    def encode(features: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            return encoder(features).last_hidden_state

    def whole(_: int) -> torch.Tensor:
        return encode(windows.log_mel(samples)[None])

    before = torch.get_num_threads()
    with ThreadPoolExecutor(
        readers, initializer=torch.set_num_threads, initargs=(threads if readers > 1 else 1,)
    ) as pool:
        if readers == 1:
            torch.set_num_threads(threads)
        started = time.perf_counter()
        if readers > 1:
            list(pool.map(whole, range(WINDOWS * ROUNDS)))
        else:
            made = [pool.submit(windows.log_mel, samples) for _ in range(WINDOWS * ROUNDS)]
            for start in range(0, len(made), WINDOWS):
                encode(torch.stack([one.result() for one in made[start : start + WINDOWS]]))
        taken = time.perf_counter() - started
    torch.set_num_threads(before)
    return 1000 * taken / (WINDOWS * ROUNDS)


if __name__ == "__main__":
    main()
