"""Counted floating-point operations of Whisper's parts, two for each multiply and add; by published dimensions.

Matrix products and attention only: norms, activations and softmax are a few per cent, and memory is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

FRAMES = 3000  # of a window's log-mel
POSITIONS = FRAMES // 2  # of the encoder's states in a window


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the counts need to know of a model; feed-forward layers are four times as wide as `d_model`."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    vocabulary: int = 51865
    n_mels: int = 80

    @property
    def parameters(self) -> int:
        """Weights of the matrices and embeddings, biases and norms left out."""
        d = self.d_model
        convolutions = 3 * self.n_mels * d + 3 * d * d
        layers = 12 * self.encoder_layers + 16 * self.decoder_layers
        return convolutions + layers * d * d + (self.vocabulary + POSITIONS + 448) * d

    @property
    def decoder_share(self) -> float:
        """Of the parameters."""
        d = self.d_model
        return (16 * self.decoder_layers * d * d + (self.vocabulary + 448) * d) / self.parameters


PUBLISHED = {  # Radford et al. 2022, table 1; large-v3 and turbo from their released configs
    "tiny": Shape(d_model=384, encoder_layers=4, decoder_layers=4),
    "base": Shape(d_model=512, encoder_layers=6, decoder_layers=6),
    "small": Shape(d_model=768, encoder_layers=12, decoder_layers=12),
    "medium": Shape(d_model=1024, encoder_layers=24, decoder_layers=24),
    "large": Shape(d_model=1280, encoder_layers=32, decoder_layers=32, vocabulary=51866, n_mels=128),
    "turbo": Shape(d_model=1280, encoder_layers=32, decoder_layers=4, vocabulary=51866, n_mels=128),
}


def encoder(shape: Shape) -> float:
    """One window through the encoder."""
    d = shape.d_model
    convolutions = 2 * 3 * shape.n_mels * d * FRAMES + 2 * 3 * d * d * POSITIONS
    layer = 2 * POSITIONS * 12 * d * d + 4 * POSITIONS**2 * d
    return float(convolutions + shape.encoder_layers * layer)


def decoder_forward(shape: Shape, *, windows: float, tokens: float, labels: float) -> tuple[float, float]:
    """A forward pass of the decoder.

    Args:
        windows: in the batch.
        tokens: decoder positions computed in all, padding included.
        labels: positions whose vocabulary is computed.

    Returns:
        keys and values of the states for cross-attention, and everything that is done by token.
    """
    d = shape.d_model
    states = shape.decoder_layers * windows * 2 * POSITIONS * 2 * d * d
    by_token = shape.decoder_layers * tokens * (2 * 14 * d * d + 4 * POSITIONS * d)
    return float(states), float(by_token + labels * 2 * d * shape.vocabulary)


def decoder_training(shape: Shape, *, windows: float, tokens: float, labels: float) -> float:
    """Forward and backward over a frozen encoder's states: no gradient of the states themselves is computed."""
    states, by_token = decoder_forward(shape, windows=windows, tokens=tokens, labels=labels)
    return 2 * states + 3 * by_token
