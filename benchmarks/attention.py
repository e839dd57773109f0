"""Encoder on CPU in bf16: attention, layout and windows side by side, in milliseconds a window; errors.

    python benchmarks/attention.py

The encoder is random-weight Whisper tiny by its published dimensions; the error is that of its states against float32.
Then from samples, by the attention that this processor gets: all threads share a pass, as one makes log-mels, or each
does whole windows side by side, as `encode` does.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechft.whisper import attention, load, states, windows
from speechft.whisper.load import Device

WINDOWS = 4  # in a pass
ROUNDS = 8  # passes from samples, so that the threads' start and end count for little
DEVICE = Device(name="cpu", precision=torch.bfloat16, reason="as compared here")
SAMPLES = np.random.default_rng(1).normal(0, 0.1, windows.N_SAMPLES).astype(np.float32)


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
        "| threads | PyTorch's, ms | in blocks, ms | positions together too, ms | error of PyTorch's | error in blocks "
        "| shared, ms | side by side, ms |"
    )
    print("| --: | --: | --: | --: | --: | --: | --: | --: |")
    rearranged = copy.deepcopy(encoder)
    load.lay_positions_together(rearranged)
    for threads in options.threads:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            exact = encoder(features).last_hidden_state
            taken, errors = [], []
            for blocked in (False, True):
                with torch.autocast("cpu", torch.bfloat16), attention.in_blocks(encoder, wanted=blocked):
                    found = encoder(features).last_hidden_state.float()
                    taken.append(milliseconds(lambda: encoder(features), times=options.times))
                errors.append(float((found - exact).norm() / exact.norm()))
            with torch.autocast("cpu", torch.bfloat16), attention.in_blocks(rearranged, wanted=True):
                assert torch.equal(rearranged(features).last_hidden_state.float(), found)
                taken.append(milliseconds(lambda: rearranged(features), times=options.times))
        rearranged.requires_grad_(False)
        with attention.in_blocks(rearranged, wanted=not load.processor_has("amx_bf16")):
            apart = shared_ms(rearranged, threads), side_by_side_ms(rearranged, threads)
        torch.set_num_threads(threads)
        print(
            f"| {threads} | {taken[0]:.0f} | {taken[1]:.0f} | {taken[2]:.0f} | {errors[0]:.4f} | {errors[1]:.4f} | "
            f"{apart[0]:.0f} | {apart[1]:.0f} |"
        )


def shared_ms(encoder: WhisperEncoder, threads: int) -> float:
    """Milliseconds a window from samples: one thread makes log-mels, all share the operators of four windows."""
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as reader:
        reader.submit(int).result()  # begun, so that what it sets is not what we set
        torch.set_num_threads(threads)

        def encode() -> None:
            made = [reader.submit(windows.log_mel, SAMPLES) for _ in range(WINDOWS * ROUNDS)]
            for first in range(0, len(made), WINDOWS):
                states.encode(encoder, torch.stack([one.result() for one in made[first : first + WINDOWS]]), DEVICE)

        return milliseconds(encode, times=2) / ROUNDS


def side_by_side_ms(encoder: WhisperEncoder, threads: int) -> float:
    """The same by threads that do whole windows, one at a time."""
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:

        def whole(_: int) -> torch.Tensor:
            return states.encode(encoder, windows.log_mel(SAMPLES)[None], DEVICE)

        return milliseconds(lambda: list(pool.map(whole, range(WINDOWS * ROUNDS))), times=2) / ROUNDS


if __name__ == "__main__":
    main()
