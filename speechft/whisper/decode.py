"""Hypotheses from encoder states: one decode path for before, after, dev scores during training, and deployment tests.

Decoding is transformers' own `generate`, greedy or with a beam, stopping where the reference decoder stops. It is the
plain one of all models: Whisper's own wants the audio again, and a generation config newer than many models have.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor
from transformers.modeling_outputs import BaseModelOutput

from speechft import audio
from speechft.whisper import attention, memory, states, windows
from speechft.whisper.load import Device, Whisper, quiet_transformers
from speechft.whisper.tokens import MAX_TARGET_POSITIONS, REFERENCE_SAMPLE_LEN


def decode(
    whisper: Whisper,
    encoded: torch.Tensor,
    *,
    device: Device,
    beam: int = 1,
    timestamps: bool = False,
    max_new_tokens: int = REFERENCE_SAMPLE_LEN,
) -> list[str]:
    """Transcribe windows, after the previous text that the model was saved with, if any.

    Args:
        encoded: states, shape (batch, 1500, d_model), any float type.
        beam: beam width; 1 is greedy.
        timestamps: let the model write timestamps (they are not part of the text returned).

    Returns:
        one transcript a window, spaces trimmed. A batch that a GPU's memory does not hold is decoded in halves.
    """
    options: dict[str, Any] = {"beam": beam, "timestamps": timestamps, "max_new_tokens": max_new_tokens}
    written = memory.in_halves(lambda some: decode_ids(whisper, some, device=device, **options), encoded)
    return [_text(whisper, row) for rows in written for row in rows]


def decode_ids(
    whisper: Whisper, encoded: torch.Tensor, *, device: Device, beam: int = 1, timestamps: bool = False,
    max_new_tokens: int = REFERENCE_SAMPLE_LEN,
) -> list[list[int]]:  # fmt: skip
    """As `decode`, but the generated token ids, prompt and padding left out."""
    model = whisper.model.to(device.name)
    previous = list(whisper.tokenizer.get_prompt_ids(whisper.prompt)) if whisper.prompt else []
    start = [*previous, *whisper.ids.prompt, *([] if timestamps else [whisper.ids.no_timestamps])]
    rules = WhisperTimeStampLogitsProcessor(model.generation_config, begin_index=len(start)) if timestamps else None
    # On CPU the fused kernel takes 5x as long as plain products for one query over 1,500 keys.
    plain = attention.implemented(model, "eager" if device.name == "cpu" else None)
    with plain, attention.of_many_shapes(), _cast_once(model), device.autocast(), quiet_transformers():
        output: Any = transformers.GenerationMixin.generate(
            model, decoder_input_ids=torch.tensor([start] * len(encoded), device=device.name),
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.to(device.name, torch.float32)),
            logits_processor=transformers.LogitsProcessorList([rules] if rules else []), num_beams=beam,
            do_sample=False, max_new_tokens=min(max_new_tokens, MAX_TARGET_POSITIONS - len(start)),
        )  # fmt: skip
    ended = {whisper.ids.end}
    return [[token for token in row if token not in ended] for row in output[:, len(start) :].tolist()]


@contextlib.contextmanager
def _cast_once(model: Any) -> Iterator[None]:
    """Without gradients, and such that autocast casts the decoder's weights once and not for every token.

    It keeps what it casts of weights that may train alone (PyTorch's autocast_mode.cpp, `cached_cast`), and nothing in
    `inference_mode`.
    """
    frozen = [parameter for parameter in model.model.decoder.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.no_grad():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _text(whisper: Whisper, row: list[int]) -> str:
    plain = [token for token in row if token < whisper.ids.end or token > whisper.ids.first_timestamp + 1500]
    text: str = whisper.tokenizer.decode(plain, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip()


def from_store(
    whisper: Whisper, store: states.Store, numbers: Sequence[int], *, device: Device, batch: int, beam: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:  # fmt: skip
    """Transcribe kept windows, in the order asked for."""
    texts: list[str] = []
    for start in range(0, len(numbers), batch):
        texts += decode(whisper, store.read(numbers[start : start + batch]), device=device, beam=beam)
        progress(len(texts))
    return texts


def from_audio(
    whisper: Whisper, clips: Sequence[np.ndarray], *, device: Device, batch: int = 8, beam: int = 1,
    timestamps: bool = False, progress: Callable[[int], None] = lambda done: None,
) -> list[str]:  # fmt: skip
    """Transcribe clips of at most 30 s of float32 samples at 16 kHz."""
    texts: list[str] = []
    encoder = whisper.model.model.encoder.to(device.name)
    for start in range(0, len(clips), batch):
        features = torch.stack(
            [windows.log_mel(windows.pad_window(clip), n_mels=whisper.n_mels) for clip in clips[start : start + batch]]
        )
        encoded = states.encode(encoder, features, device)
        texts += decode(whisper, encoded, device=device, beam=beam, timestamps=timestamps)
        progress(len(texts))
    return texts


def thirty_second_pieces(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Cut a long recording at the quietest moment of each window's last 5 s."""
    position = 0
    while len(samples) - position > windows.N_SAMPLES:
        tail_first = position + windows.N_SAMPLES - 5 * audio.SAMPLE_RATE
        frames = samples[tail_first : position + windows.N_SAMPLES].reshape(-1, 800)  # 50 ms
        end = tail_first + (int(np.argmin((frames**2).mean(axis=1))) + 1) * 800
        yield samples[position:end]
        position = end
    yield samples[position:]
