"""The training loop: teacher forcing over kept encoder states, or over audio when the encoder itself changes.

One plain loop, because a Trainer pads, gathers and reorders in ways that defeat kept states: a step here is a handful
of packed windows read from disk, one decoder pass, one optimiser step. Every draw (order, timestamps, previous text)
comes from the seed and the epoch or step number, so a resumed run repeats an uninterrupted one.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speechft import files
from speechft.adapt import masks, retain, strategies
from speechft.errors import InputError
from speechft.whisper import attention, tokens
from speechft.whisper.load import Device, Whisper

logger = logging.getLogger(__name__)

WARMUP_SHARE = 0.1
FINAL_RATE_SHARE = 0.1
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
MAX_PREVIOUS = 64  # tokens of earlier text in the share of windows that get any


@dataclass(frozen=True, kw_only=True)
class Item:
    """One window to learn from: its number in the store (or among the features), what was said, and its part."""

    number: int
    segments: tuple[tokens.Segment, ...]
    view: int
    replay: bool


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; see `config.Finetune` for what each setting means."""

    strategy: str
    epochs: int
    learning_rate: float
    batch_clips: int
    replay_share: float
    distil: float
    l2sp: float
    patience: int
    timestamp_share: float
    previous_share: float
    upper_layers: int
    encoder_layers: int
    lora_rank: int
    seed: int
    time_masks: int = 0  # SpecAugment, see `masks.hide`
    time_mask_s: float = 0.0
    channel_masks: int = 0
    channel_mask_share: float = 0.0


@dataclass(kw_only=True)
class Progress:
    """What a checkpoint carries beside weights and optimiser."""

    epoch: int = 0
    step: int = 0
    best_wer: float = math.inf
    best_epoch: int = -1
    bad_evaluations: int = 0
    seconds: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


def epoch_steps(items: Sequence[Item], recipe: Recipe, *, epoch: int) -> list[list[Item]]:
    """The windows of each step of an epoch.

    An epoch passes once over the domain rows, in the view whose turn it is; each step is filled up with replayed
    general windows to `replay_share` of its clips.
    """
    rng = random.Random(f"{recipe.seed}:epoch:{epoch}")
    views = sorted({item.view for item in items if not item.replay})
    view = views[epoch % len(views)]
    domain = [item for item in items if not item.replay and item.view == view]
    replayed = [item for item in items if item.replay]
    rng.shuffle(domain)
    rng.shuffle(replayed)
    replay_clips = round(recipe.batch_clips * recipe.replay_share) if replayed else 0
    steps: list[list[Item]] = []
    next_replay = _cycle(replayed, rng)
    for chunk in _chunks(domain, recipe.batch_clips - replay_clips):
        clips = 0
        while clips < replay_clips:
            chunk.append(next(next_replay))
            clips += len(chunk[-1].segments)
        steps.append(chunk)
    return steps


def _chunks(items: list[Item], clips: int) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    count = 0
    for item in items:
        chunk.append(item)
        count += len(item.segments)
        if count >= clips:
            yield chunk
            chunk, count = [], 0
    if chunk:
        yield chunk


def _cycle(items: list[Item], rng: random.Random) -> Iterator[Item]:
    while True:
        yield from items
        rng.shuffle(items)


def make_examples(
    ids: tokens.Layout, items: Sequence[Item], recipe: Recipe, *, step: int, pool: Sequence[tuple[int, ...]]
) -> list[tokens.Example]:
    """Decoder inputs and labels; a share of windows gets timestamps, a share gets (unrelated) previous text.

    Unrelated previous text teaches the decoder to listen rather than to follow it, and keeps the ability alive.
    """
    rng = random.Random(f"{recipe.seed}:step:{step}")
    examples = []
    for item in items:
        previous = rng.choice(pool)[-MAX_PREVIOUS:] if pool and rng.random() < recipe.previous_share else ()
        stamped = rng.random() < recipe.timestamp_share
        examples.append(tokens.example(ids, item.segments, timestamps=stamped, previous=previous))
    return examples


def rate_at(step: int, total: int, peak: float) -> float:
    """Linear warm-up over the first tenth, then a half cosine down to a tenth of the peak."""
    warmup = max(1, round(total * WARMUP_SHARE))
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, total - warmup)
    return peak * (FINAL_RATE_SHARE + (1 - FINAL_RATE_SHARE) * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def train(
    whisper: Whisper,
    items: Sequence[Item],
    recipe: Recipe,
    *,
    device: Device,
    inputs: Callable[[Sequence[int]], torch.Tensor],
    from_states: bool,
    evaluate: Callable[[], dict[str, float]],
    out: Path,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> Progress:
    """Train in place and leave the weights of the best evaluation in `whisper.model`.

    Args:
        items: windows of every view, domain and replay.
        inputs: gives states (n, 1500, d_model) for window numbers, or log-mels (n, mels, 3000) if not `from_states`.
        evaluate: scores the model as it stands on dev by generating: at least `{"dev_wer": ...}`.
        out: folder for `checkpoint.pt` (resumed from when present), `best.pt` and `curve.jsonl`.

    Raises:
        InputError: nothing to train on, or the loss is not finite (step, rows and rate are named).
    """
    if not any(not item.replay for item in items):
        raise InputError("finetune: no training windows are left; look at rejects.jsonl in the ingest folder")
    model = whisper.model.to(device.name)
    base = copy.deepcopy(model.model.decoder).requires_grad_(False) if recipe.distil > 0 else None
    attending = training_attention(device, from_states=from_states)
    if base is not None and attending:
        base.set_attn_implementation(attending)
    anchor = {name: p.detach().clone() for name, p in model.named_parameters()} if recipe.l2sp > 0 else {}
    model, merge = _prepare(model, recipe)
    steps_total = sum(len(epoch_steps(items, recipe, epoch=e)) for e in range(recipe.epochs))
    trained = [p for p in model.parameters() if p.requires_grad]
    candidates = _ever_trained(model, recipe)
    optimizer = torch.optim.AdamW(
        candidates, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
    )
    scaler = torch.amp.GradScaler(device.name, enabled=device.precision == torch.float16)
    state = _resume(out, model, optimizer)
    if state.epoch == 0 and not state.curve:
        state.curve.append({"epoch": 0, "step": 0, **evaluate()})
        _save(out, model, optimizer, state, recipe)
    pool = [segment.tokens for item in items if not item.replay for segment in item.segments if segment.tokens]
    every = max(1, recipe.epochs // 8)
    stopping = _StopSignal()
    started = time.monotonic()
    for epoch in range(state.epoch, recipe.epochs):
        if recipe.strategy == "progressive":
            _thaw(model, recipe, epoch=epoch)
        model.train()
        losses = []
        for chunk in epoch_steps(items, recipe, epoch=epoch):
            rate = rate_at(state.step, steps_total, recipe.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            examples = make_examples(whisper.ids, chunk, recipe, step=state.step, pool=pool)
            decoder_inputs, labels = (t.to(device.name) for t in tokens.collate(examples, end=whisper.ids.end))
            features = inputs([item.number for item in chunk]).to(device.name)
            features = _masked(features, chunk, recipe, step=state.step, from_states=from_states)
            with attention.implemented(whisper.model, attending):
                loss = _loss(model, features, decoder_inputs, labels, chunk, recipe, device, from_states, base, anchor)
            if not torch.isfinite(loss):
                where = ", ".join(str(item.number) for item in chunk[:8])
                raise InputError(
                    f"finetune: the loss is {float(loss.detach())} at step {state.step} (windows {where}, learning "
                    f"rate {rate:.2e}); lower finetune.learning_rate. The last good checkpoint is "
                    f"{out / 'checkpoint.pt'}"
                )
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(trained, CLIP_NORM)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            state.step += 1
            losses.append(float(loss.detach()))
            progress(state.step, steps_total, losses[-1])
        state.epoch = epoch + 1
        if state.epoch % every == 0 or state.epoch == recipe.epochs or stopping.asked:
            model.eval()
            row = {
                "epoch": state.epoch,
                "step": state.step,
                "loss": sum(losses) / len(losses),
                "rate": rate,
                **evaluate(),
            }
            state.curve.append(row)
            say(_line(row, recipe.epochs))
            if row["dev_wer"] < state.best_wer:
                state.best_wer, state.best_epoch, state.bad_evaluations = row["dev_wer"], state.epoch, 0
                with files.atomic_write(out / "best.pt", "wb") as file:
                    torch.save({"model": _trained_state(model, recipe), "epoch": state.epoch}, file)
            else:
                state.bad_evaluations += 1
            state.seconds += time.monotonic() - started
            started = time.monotonic()
            _save(out, model, optimizer, state, recipe)
            if stopping.asked:
                raise InputError("finetune: stopped by a signal; the same command goes on from the checkpoint")
            if state.bad_evaluations >= recipe.patience:
                say(f"dev WER has not fallen for {recipe.patience} evaluations: stopped at epoch {state.epoch}")
                break
    if (out / "best.pt").exists():
        best = torch.load(out / "best.pt", map_location=device.name, weights_only=True)
        model.load_state_dict(best["model"], strict=False)
    whisper.model = merge(model)
    whisper.model.eval()
    files.write_jsonl(out / "curve.jsonl", state.curve)
    return state


def training_attention(device: Device, *, from_states: bool) -> str | None:
    """The attention to train the decoder with; None for the model's own.

    In bf16 on CPU plain products take half the time of the fused kernel forward and backward (0.41 s a step for
    0.76 s on nano, one core). An encoder that trains would have to keep 1500 x 1500 weights a head: it stays fused.
    """
    return "eager" if from_states and device.name == "cpu" and device.precision == torch.bfloat16 else None


def _masked(
    features: torch.Tensor, chunk: Sequence[Item], recipe: Recipe, *, step: int, from_states: bool
) -> torch.Tensor:
    return masks.hide(
        features, time_axis=1 if from_states else 2, ends_s=[item.segments[-1].end_s for item in chunk],
        seeds=[f"{recipe.seed}:step:{step}:{item.number}" for item in chunk], time_masks=recipe.time_masks,
        time_mask_s=recipe.time_mask_s, channel_masks=recipe.channel_masks,
        channel_mask_share=recipe.channel_mask_share,
    )  # fmt: skip


def _loss(
    model: Any, features: torch.Tensor, decoder_inputs: torch.Tensor, labels: torch.Tensor, chunk: Sequence[Item],
    recipe: Recipe, device: Device, from_states: bool, base: Any, anchor: dict[str, torch.Tensor],
) -> torch.Tensor:  # fmt: skip
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    with device.autocast():
        states = features if from_states else core.model.encoder(features).last_hidden_state
        if from_states:
            states = states.to(device.precision)
        hidden = core.model.decoder(input_ids=decoder_inputs, encoder_hidden_states=states, use_cache=False)
        logits = core.proj_out(hidden.last_hidden_state)
    loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=tokens.IGNORED)
    replayed = torch.tensor([item.replay for item in chunk], device=labels.device)
    if base is not None and bool(replayed.any()):
        with torch.no_grad(), device.autocast():
            old = base(
                input_ids=decoder_inputs[replayed],
                encoder_hidden_states=states[replayed].detach(),
                use_cache=False,
            )
            base_logits = nn.functional.linear(old.last_hidden_state, base.embed_tokens.weight)
        loss = loss + recipe.distil * retain.distillation(logits[replayed], base_logits, labels[replayed])
    if anchor:
        moved = {name: p for name, p in core.named_parameters() if p.requires_grad and name in anchor}
        loss = loss + recipe.l2sp * retain.distance(moved, anchor)
    return loss


def _prepare(model: Any, recipe: Recipe) -> tuple[Any, Callable[[Any], Any]]:
    """Freeze, or add adapters; also how to get a plain model back."""
    if recipe.strategy == "lora":
        import peft

        adapters = peft.LoraConfig(
            r=recipe.lora_rank,
            lora_alpha=2 * recipe.lora_rank,
            target_modules=r".*decoder\.layers\.\d+\.(self_attn|encoder_attn)\.(q_proj|k_proj|v_proj|out_proj)|.*decoder\.layers\.\d+\.fc[12]",
        )
        return peft.get_peft_model(model, adapters), lambda adapted: adapted.merge_and_unload()
    _thaw(model, recipe, epoch=0)
    return model, lambda trained: trained


def _thaw(model: Any, recipe: Recipe, *, epoch: int) -> None:
    strategies.freeze(
        model,
        recipe.strategy,
        upper_layers=recipe.upper_layers,
        thaw_encoder_layers=recipe.encoder_layers,
        epoch=epoch,
        epochs=max(1, recipe.epochs // 2),
    )


def _ever_trained(model: Any, recipe: Recipe) -> list[torch.Tensor]:
    """What the optimiser holds: all that trains at any epoch (progressive thaws more later)."""
    if recipe.strategy != "progressive":
        return [p for p in model.parameters() if p.requires_grad]
    _thaw(model, recipe, epoch=recipe.epochs)
    chosen = [p for p in model.parameters() if p.requires_grad]
    _thaw(model, recipe, epoch=0)
    return chosen


def _trained_state(model: Any, recipe: Recipe) -> dict[str, torch.Tensor]:
    if recipe.strategy == "progressive":
        return {k: v.detach().cpu() for k, v in model.state_dict().items()}
    moved = {name for name, p in model.named_parameters() if p.requires_grad}
    return {k: v.detach().cpu() for k, v in model.state_dict().items() if k in moved}


def _save(out: Path, model: Any, optimizer: torch.optim.Optimizer, state: Progress, recipe: Recipe) -> None:
    with files.atomic_write(out / "checkpoint.pt", "wb") as file:
        torch.save(
            {
                "model": _trained_state(model, recipe),
                "optimizer": optimizer.state_dict(),
                "progress": json.dumps(vars(state)),
            },
            file,
        )


def _resume(out: Path, model: Any, optimizer: torch.optim.Optimizer) -> Progress:
    path = out / "checkpoint.pt"
    if not path.exists():
        return Progress()
    saved = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(saved["model"], strict=False)
    optimizer.load_state_dict(saved["optimizer"])
    progress = Progress(**json.loads(saved["progress"]))
    logger.info("finetune: goes on after epoch %d, step %d", progress.epoch, progress.step)
    return progress


def _line(row: dict[str, Any], epochs: int) -> str:
    general = f", general WER {row['general_wer']:.3f}" if row.get("general_wer") is not None else ""
    return f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.3f}, dev WER {row['dev_wer']:.3f}{general}"


class _StopSignal:
    """Notes SIGTERM, so that the loop can save and leave at the end of the epoch."""

    def __init__(self) -> None:
        self.asked = False
        try:
            signal.signal(signal.SIGTERM, self._note)
        except ValueError:  # not the main thread: the caller handles signals
            logger.debug("signals are handled by the caller")

    def _note(self, *_: object) -> None:
        self.asked = True
