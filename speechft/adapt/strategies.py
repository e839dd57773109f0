"""What trains under each strategy: parameter names in, groups out. Frozen tensors never reach the optimiser.

Whisper's token matrix is both the decoder's input embedding and its output layer (tied), so `head` trains it for both.
The encoder's sinusoidal positions are constants and stay frozen under every strategy.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechft import files
from speechft.errors import InputError

if TYPE_CHECKING:
    from speechft.whisper.load import Whisper

TOKENS = "model.decoder.embed_tokens.weight"
FINAL_NORM = "model.decoder.layer_norm."
CONSTANT = "model.encoder.embed_positions.weight"
ADAPTED = r"layers\.\d+\.(((self|encoder)_attn\.(q_proj|k_proj|v_proj|out_proj))|fc[12])"


@dataclass(frozen=True, kw_only=True)
class SizeDefaults:
    """Learning rate, clips a step and the share of windows with other text before, for a decoder width.

    The rates are the published fine-tuning rates by size (Hugging Face audio course and event notes: 3.75e-5 tiny to
    4.4e-6 large for full fine-tuning), three times as high because only the decoder moves and replay holds it; `nano`,
    two hundred times smaller than `small`, needs and bears more. It has never seen text before its prompt, and being
    taught to pass over it costs it words (docs/log.md, 2026-11-28); released models know such text.
    """

    learning_rate: float
    batch_clips: int
    previous_share: float = 0.1


SIZES = (  # d_model up to -> defaults
    (256, SizeDefaults(learning_rate=4e-4, batch_clips=32, previous_share=0.0)),  # nano
    (384, SizeDefaults(learning_rate=1e-4, batch_clips=32)),  # tiny
    (512, SizeDefaults(learning_rate=7e-5, batch_clips=32)),  # base
    (768, SizeDefaults(learning_rate=4e-5, batch_clips=32)),  # small
    (1024, SizeDefaults(learning_rate=2e-5, batch_clips=32)),  # medium
    (1280, SizeDefaults(learning_rate=1.5e-5, batch_clips=32)),  # large, turbo
)


# Of the decoder's rate: with the encoder too, the published rates themselves; adapters start at nothing and bear more;
# from random weights about those of pre-training (Radford et al. 2022, appendix F: 1.5e-3 tiny to 1.75e-4 large), less
# by the root of the batch, which is an eighth of theirs.
RATE_SHARES = {"full": 1 / 3, "progressive": 1 / 3, "lora": 5.0, "scratch": 5.0}


def size_defaults(d_model: int, strategy: str = "decoder") -> SizeDefaults:
    """The defaults of the smallest size that is at least as wide, the rate made the strategy's."""
    found = next((defaults for width, defaults in SIZES if d_model <= width), SIZES[-1][1])
    return dataclasses.replace(found, learning_rate=RATE_SHARES.get(strategy, 1.0) * found.learning_rate)


def trainable(
    names: list[str], strategy: str, *, decoder_layers: int, encoder_layers: int, upper_layers: int = 2,
    thaw_encoder_layers: int = 0, epoch: int = 0, epochs: int = 1,
) -> list[str]:  # fmt: skip
    """The parameters that train.

    Args:
        names: all parameter names of a `WhisperForConditionalGeneration`.
        strategy: see DESIGN; `lora` trains adapters that `peft` adds, so none of these.
        decoder_layers, encoder_layers: the model's own.
        upper_layers: how many top decoder layers `upper` trains.
        thaw_encoder_layers: how many top encoder layers `progressive` may reach after the decoder.
        epoch, epochs: `progressive` thaws one more share of the layers, from the top, each epoch.

    Raises:
        InputError: an unknown strategy.
    """
    if strategy in ("prompt", "lora"):
        return []
    if strategy == "head":
        return [n for n in names if n == TOKENS or n.startswith(FINAL_NORM)]
    if strategy == "decoder":
        return [n for n in names if n.startswith("model.decoder.")]
    if strategy in ("full", "scratch"):
        return [n for n in names if n != CONSTANT]
    if strategy == "upper":
        first = max(0, decoder_layers - upper_layers)
        return [n for n in names if n.startswith(FINAL_NORM) or _layer(n, "decoder") >= first]
    if strategy == "progressive":
        stack = [("decoder", i) for i in reversed(range(decoder_layers))]
        stack += [("encoder", i) for i in reversed(range(max(0, encoder_layers - thaw_encoder_layers), encoder_layers))]
        count = max(1, -(-len(stack) * (epoch + 1) // max(1, epochs)))
        thawed = set(stack[:count])
        everything = count >= decoder_layers
        return [
            n
            for n in names
            if n.startswith(FINAL_NORM)
            or ("decoder", _layer(n, "decoder")) in thawed
            or ("encoder", _layer(n, "encoder")) in thawed
            or (everything and n.startswith("model.decoder.") and _layer(n, "decoder") < 0)
        ]
    raise InputError(f"finetune.strategy = {strategy!r} is unknown")


def _layer(name: str, stack: str) -> int:
    found = re.match(rf"model\.{stack}\.layers\.(\d+)\.", name)
    return int(found.group(1)) if found else -1


def freeze(model: Any, strategy: str, **options: Any) -> tuple[int, int]:
    """Set `requires_grad` for a strategy.

    Returns:
        numbers of trainable and of frozen values.
    """
    chosen = set(
        trainable(
            [name for name, _ in model.named_parameters()],
            strategy,
            decoder_layers=model.config.decoder_layers,
            encoder_layers=model.config.encoder_layers,
            **options,
        )
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return count, sum(p.numel() for p in model.parameters()) - count


def draw_anew(model: Any, *, seed: int) -> None:
    """Random weights in place of the model's own, as `transformers` draws them for its dimensions."""
    import torch

    torch.manual_seed(seed)
    model.load_state_dict(type(model)(model.config).state_dict())


def _adapted(encoder: bool) -> str:
    return rf".*{'(encoder|decoder)' if encoder else 'decoder'}\.{ADAPTED}"


def adapter_values(model: Any, *, rank: int, encoder: bool) -> int:
    """How many values the adapters of `with_adapters` have."""
    wanted = [m for name, m in model.named_modules() if re.fullmatch(_adapted(encoder), name)]
    return sum(rank * (m.in_features + m.out_features) for m in wanted)


def with_adapters(model: Any, *, rank: int, encoder: bool) -> Any:
    """Add low-rank adapters (Hu et al. 2021) to every attention and feed-forward matrix, and freeze the rest.

    Args:
        model: changed in place; the `peft` model that is returned holds it.
        rank: of the adapters; their scale is 2, alpha being twice the rank.
        encoder: also in the encoder.
    """
    import peft

    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_adapted(encoder))
    return peft.get_peft_model(model, config)


def save_adapters(model: Any, whisper: Whisper, folder: Path) -> None:
    """Keep adapters apart from their base, as peft loads them; with the list of tokens that the model may not write,
    which training may have changed, for whoever puts the two together."""
    if whisper.revision:  # from the hub: named as it is there, not where it lies here
        config = model.peft_config["default"]
        config.base_model_name_or_path, config.revision = whisper.name, whisper.revision
    model.save_pretrained(folder, save_embedding_layers=False)  # which are never adapted; else it asks the hub
    whisper.model.generation_config.save_pretrained(folder)


def scale_adapters(folder: Path, alpha: float) -> None:
    """Make saved adapters those of the blend: their second factor times alpha, so that base + adapters is what was
    chosen.

    Args:
        folder: as `save_pretrained` of `with_adapters`' model wrote it.
        alpha: 0 is the base, 1 the tuned weights.
    """
    from safetensors import torch as safetensors

    path = folder / "adapter_model.safetensors"
    held = safetensors.load_file(path)
    scaled = {name: value * alpha if ".lora_B." in name else value for name, value in held.items()}
    with files.atomic_write(path, "wb") as file:
        file.write(safetensors.save(scaled, metadata={"format": "pt"}))
