"""Encoder self-attention on CPU in bf16: PyTorch's kernel, and in blocks; milliseconds a window, and the error.

    python benchmarks/attention.py

The encoder is random-weight Whisper tiny by its published dimensions; the error is that of its states against float32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechft.whisper import attention

WINDOWS = 4


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
    print("| threads | PyTorch's, ms | in blocks, ms | ratio | error of PyTorch's | error in blocks |")
    print("| --: | --: | --: | --: | --: | --: |")
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
        print(
            f"| {threads} | {taken[0]:.0f} | {taken[1]:.0f} | {taken[0] / taken[1]:.2f} | "
            f"{errors[0]:.4f} | {errors[1]:.4f} |"
        )


if __name__ == "__main__":
    main()
