"""The training loop: teacher forcing over kept encoder states, or over audio when the encoder itself changes.

One plain loop, because a Trainer pads, gathers and reorders in ways that defeat kept states: a step here is a handful
of packed windows read from disk, one decoder pass, one optimiser step.
"""

from __future__ import annotations

import copy
import json
import math
import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from speechft import files
from speechft.adapt import graphs, masks, objective, passes, retain, standing, strategies
from speechft.adapt.standing import Standing
from speechft.adapt.steps import Item, Recipe, epoch_steps, evaluated_every, make_examples, rate_at
from speechft.adapt.stopping import StopSignal
from speechft.adapt.team import Team
from speechft.errors import InputError, Stopped
from speechft.whisper import attention, memory, tokens
from speechft.whisper.load import Device, Whisper

WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0
SMALLER = "adapt a smaller model, or by lora or head"
NAMED = 8  # windows of a step whose rows a message names
SAVE_EVERY_S = 600.0  # a kill in the middle of a long epoch loses no more than this


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
    team: Team | None = None,
    name_of: Callable[[int], str] = str,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> Standing:
    """Train in place and leave the weights of the best evaluation in `whisper.model`.

    Args:
        items: windows of every view, domain and replay.
        inputs: gives states (n, 1500, d_model) for window numbers, or log-mels (n, mels, 3000) if not `from_states`;
            called in another thread, a step ahead.
        evaluate: scores the model as it stands on dev by generating: at least `{"dev_wer": ...}`.
        out: folder for `checkpoint.pt` (resumed from when present), `best.pt`, `curve.jsonl`, and `adapter` (LoRA).
        team: the processes that train together.
        name_of: which rows a window number holds, for error messages.

    Raises:
        InputError: nothing to train on, the loss is not finite or grows (step, rows and rate are named), or one
            window alone, or the optimiser's moments, do not fit into memory.
        Stopped: SIGTERM or SIGINT came; the checkpoint holds the last whole step.
    """
    if not any(not item.replay for item in items):
        raise InputError("finetune: no training windows are left; see rejects.jsonl in the ingest and encode folders")
    loop = Loop(
        whisper, recipe, device=device, inputs=inputs, from_states=from_states, out=out, team=team or Team(),
        name_of=name_of, say=say,
    )  # fmt: skip
    state = loop.resume()
    if not state.curve:
        state.curve.append({"epoch": 0, "step": 0, **loop.team.told(evaluate() if loop.team.first else {})})
        if recipe.strategy == "scratch":  # now that the base is measured
            strategies.draw_anew(loop.core, seed=recipe.seed)
        loop.save()
    pool = [segment.tokens for item in items if not item.replay for segment in item.segments if segment.tokens]
    total = sum(len(epoch_steps(items, recipe, epoch=e)) for e in range(recipe.epochs))
    every = evaluated_every(recipe.epochs, recipe.thaw)
    with loop.stopping:
        while state.epoch < recipe.epochs and state.bad_evaluations < recipe.patience:
            loop.thaw()
            loop.epoch(epoch_steps(items, recipe, epoch=state.epoch), total=total, pool=pool, progress=progress)
            rate, ended, measured = rate_at(state.step - 1, total, recipe.learning_rate), state.epoch + 1, None
            if ended % every == 0 or ended == recipe.epochs:
                loop.save()  # a kill while dev is decoded loses no step
                loop.model.eval()
                measured = loop.team.told(evaluate() if loop.team.first else {})
            state.epoch, state.done = ended, 0
            if measured is None:
                continue
            row = {"epoch": state.epoch, "step": state.step, "loss": state.losses[0] / state.losses[1], "rate": rate}
            loop.note({**row, **measured})
            say(standing.line(state.curve[-1], recipe.epochs))
            loop.hear(*loop.team.total([float(loop.stopping.asked)]))
            loop.leave_if_asked()
    if state.epoch < recipe.epochs:
        say(f"dev WER has not fallen for {recipe.patience} evaluations: stopped at epoch {state.epoch}")
    loop.restore_best()
    return state


class Loop:
    """Model, optimiser and progress; one step at a time."""

    def __init__(
        self, whisper: Whisper, recipe: Recipe, *, device: Device, inputs: Callable[[Sequence[int]], torch.Tensor],
        from_states: bool, out: Path, team: Team, name_of: Callable[[int], str] = str,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:  # fmt: skip
        self.whisper, self.recipe, self.device, self.inputs = whisper, recipe, device, inputs
        self.from_states, self.out, self.team, self.name_of, self.say = from_states, out, team, name_of, say
        self.core = whisper.model.to(device.name)
        self.attending = passes.attention_kind(device, from_states=from_states)
        self.upload = passes.Upload(device)
        self.graphs = graphs.Graphs(record=graphs.are_possible(device, self.core.config, from_states=from_states))
        # Whatever becomes of the graphs, so that all processes draw alike.
        self.grid = graphs.STATES_GRID if self.graphs.record else 1
        self.base = copy.deepcopy(self.core.model).requires_grad_(False) if recipe.distil > 0 else None
        if self.base is not None:
            if from_states:
                self.base.encoder = None  # what it would say is what was kept
            if self.attending:
                self.base.decoder.set_attn_implementation(self.attending)
        self.anchor = {name: p.detach().clone() for name, p in self.core.named_parameters() if recipe.l2sp > 0}
        self.model = self.core
        if recipe.strategy == "lora":
            torch.manual_seed(recipe.seed)  # of the adapters' first factor
            self.model = strategies.with_adapters(self.core, rank=recipe.lora_rank, encoder=recipe.lora_encoder)
        self.state = Standing()
        self.trained: list[Any] = []
        self.thaw(everything=True)
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY, fused=True
        )
        self.scaler = torch.amp.GradScaler(device.name, enabled=device.precision == torch.float16)
        self.parts = 1  # forward passes a step at least, doubled when memory runs out
        self.pass_windows = passes.windows_at_once(device, self.core.config.d_model, from_states=from_states)
        self.tried = 0  # windows of the largest pass of this step
        self.stopping = StopSignal()
        self.leaving = 0  # the signal that all processes leave by; a later one waits for the next step
        self.clock_s = time.monotonic()
        self._board = standing.board(out) if team.first else None

    def thaw(self, *, everything: bool = False) -> None:
        """Set what trains now; under `progressive` that grows with the epochs, or with stalls of dev WER."""
        recipe, state = self.recipe, self.state
        layers = self.core.config.decoder_layers + recipe.encoder_layers
        turns = layers if recipe.thaw == "stall" else max(1, recipe.epochs // 2)
        turn = turns if everything else state.thawed if recipe.thaw == "stall" else state.epoch
        if recipe.strategy != "lora":
            strategies.freeze(
                self.core, recipe.strategy, upper_layers=recipe.upper_layers, thaw_encoder_layers=recipe.encoder_layers,
                epoch=turn, epochs=turns,
            )  # fmt: skip
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if len(trained) != len(self.trained):
            self.graphs.clear()
        self.trained = trained

    def epoch(
        self, steps: Sequence[Sequence[Item]], *, total: int, pool: Sequence[tuple[int, ...]],
        progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
    ) -> None:  # fmt: skip
        """The steps of an epoch that are not done yet, each one's features read while the one before is computed."""
        self.model.train()
        if not self.state.done:
            self.state.losses = [0.0, 0]
        with ThreadPoolExecutor(max_workers=1) as reader:

            def read(chunk: Sequence[Item]) -> Future[torch.Tensor]:
                mine = [item.number for item in self.team.share(chunk)]
                return reader.submit(lambda: self.upload.moved(self.inputs(mine))) if mine else Future()

            ahead = read(steps[self.state.done]) if self.state.done < len(steps) else Future()
            for index in range(self.state.done, len(steps)):
                coming, ahead = ahead, read(steps[index + 1]) if index + 1 < len(steps) else Future()
                rate = rate_at(self.state.step, total, self.recipe.learning_rate)
                loss = self.step(steps[index], coming, rate=rate, pool=pool)
                self.state.done = index + 1
                self.state.losses = [self.state.losses[0] + loss, self.state.losses[1] + 1]
                progress(self.state.step, total, loss)
                standing.show(self._board, {"loss": loss, "rate": rate}, self.state.step)
                if time.monotonic() - self.clock_s > SAVE_EVERY_S:
                    self.save()
                self.leave_if_asked()

    def step(
        self, chunk: Sequence[Item], features: Future[torch.Tensor], *, rate: float, pool: Sequence[tuple[int, ...]]
    ) -> float:
        """One optimiser step over the windows of a chunk; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        label = f"{self.recipe.seed}:step:{self.state.step}"
        torch.manual_seed(random.Random(f"{label}:{self.team.rank}").getrandbits(63))  # of dropout, if any
        examples = make_examples(self.whisper.ids, chunk, self.recipe, step=self.state.step, pool=pool)
        whole, extra = self.core.config.max_source_positions, passes.PASS_POSITIONS[self.device.name]
        lengths = [whole] * len(chunk)
        if self.from_states:
            lengths = passes.heard(
                [item.segments[-1].end_s for item in chunk], states=whole, seed=label, extra=extra,
                grid=self.grid,
            )  # fmt: skip
        mine = self.team.share(list(zip(chunk, examples, lengths, strict=True)))
        divisors = objective.count_labels(examples, [item.replay for item in chunk])
        parts = list[tuple[list[Item], torch.Tensor]]()
        there = passes.arrived(features) if mine else None
        while there is not None:
            try:
                parts = self._backward(mine, there, divisors)
                break
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                failed = error.with_traceback(None)  # which holds what the pass had made
            self._make_room(len(mine), failed)
        self.team.add_gradients(self.trained)
        self.scaler.unscale_(self.optimizer)
        norm_there = nn.utils.clip_grad_norm_(self.trained, CLIP_NORM)
        *losses, norm = torch.stack([*(value for _, value in parts), norm_there]).tolist()  # a GPU is waited for
        loss, signals = self.team.total([sum(losses), float(self.stopping.asked)])
        self.hear(signals)
        if not math.isfinite(loss):
            of_which = [items for (items, _), value in zip(parts, losses, strict=True) if not math.isfinite(value)]
            raise self._failed(f"the loss is {loss:.3g}", [item for items in of_which for item in items] or chunk, rate)
        if self.state.diverges(loss):
            raise self._failed(f"the loss is {loss:.3g}, and growing,", chunk, rate, kept="best.pt")
        if not math.isfinite(norm) and not self.scaler.is_enabled():  # a scaler skips such a step
            raise self._failed(f"the gradient is {norm:.3g}", chunk, rate)
        with memory.needed(f"finetune: what the optimiser keeps does not fit into memory; {SMALLER}"):
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=not self.graphs.record)
        self.state.step += 1
        return loss

    def _failed(self, what: str, items: Sequence[Item], rate: float, kept: str = "checkpoint.pt") -> InputError:
        """Why training cannot go on, with the rows that are to blame as far as that is known, and which weights are
        good: the last saved, or where the loss grew before it was noticed the best evaluation's."""
        good = self.out / (kept if (self.out / kept).exists() else "checkpoint.pt")
        where = ", ".join(self.name_of(item.number) for item in items[:NAMED]) + ", ..." * (len(items) > NAMED)
        return InputError(
            f"finetune: {what} at step {self.state.step} (rows {where}; learning rate {rate:.2e}); lower "
            f"finetune.learning_rate. The last good checkpoint is {good} until then: other settings begin anew"
        )

    def _backward(
        self, mine: Sequence[tuple[Item, tokens.Example, int]], features: torch.Tensor, divisors: tuple[int, int]
    ) -> list[tuple[list[Item], torch.Tensor]]:
        """Gradients of this process's windows, in as many passes as memory asks for, like lengths together.

        Returns:
            each pass's windows, and its part of the loss, which a GPU may still be computing.
        """
        core, parts = self.core, list[tuple[list[Item], torch.Tensor]]()
        together = passes.together(
            [length for *_, length in mine], [len(example.labels) for _, example, _ in mine],
            at_most=-(-len(mine) // self.parts), states_at_most=self.pass_windows * core.config.max_source_positions,
            extra=passes.PASS_POSITIONS[self.device.name],
        )  # fmt: skip
        self.tried = max(map(len, together))
        if self.anchor and self.team.first:
            parts.append(([], retain.pull(core, self.anchor, self.recipe.l2sp, scaler=self.scaler)))
        for chosen in together:
            chosen.sort(key=lambda index: not mine[index][0].replay)
            items = [mine[index][0] for index in chosen]
            given = objective.make_pass(
                [mine[index][1] for index in chosen], replayed=sum(item.replay for item in items),
                end=self.whisper.ids.end, divisors=divisors, distil=self.recipe.distil if self.base else 0.0,
                most_tokens=core.config.max_target_positions if self.graphs.record else None,
            )  # fmt: skip
            heard = features[graphs.sent(torch.tensor(chosen), features.device)].to(self.device.name)
            heard = self._masked(heard, items)
            if self.from_states:
                heard = heard[:, : mine[chosen[0]][2]]
            with attention.implemented(core, self.attending), attention.of_many_shapes():
                parts.append((items, self._passed(heard, given)))
        return parts

    def _passed(self, heard: torch.Tensor, given: objective.Pass) -> torch.Tensor:
        """One pass forward and backward; its part of the loss."""

        def call(heard: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
            loss = objective.loss(
                self.core, self.base, heard, given.holding(tensors), from_states=self.from_states, device=self.device
            )
            self.scaler.scale(loss).backward()
            return loss.detach()

        return self.graphs.run(call, heard, given.tensors, kind=given.replayed, parameters=self.trained)

    def _masked(self, features: torch.Tensor, items: Sequence[Item]) -> torch.Tensor:
        recipe = self.recipe
        return masks.hide(
            features, time_axis=1 if self.from_states else 2, ends_s=[item.segments[-1].end_s for item in items],
            seeds=[f"{recipe.seed}:step:{self.state.step}:{item.number}" for item in items],
            time_masks=recipe.time_masks, time_mask_s=recipe.time_mask_s, channel_masks=recipe.channel_masks,
            channel_mask_share=recipe.channel_mask_share,
        )  # fmt: skip

    def _make_room(self, windows: int, error: BaseException) -> None:
        """Do without what graphs hold, or have fewer windows go through at once."""
        if self.graphs.held:
            self.graphs.record, said = False, "passes are no longer kept as graphs"
        elif self.tried == 1:
            raise InputError(f"finetune: one window alone does not fit into memory; {SMALLER}") from error
        else:
            while -(-windows // self.parts) > -(-self.tried // 2):
                self.parts *= 2
            said = f"a step's windows now go through in {self.parts} parts, their gradients added up"
        self.optimizer.zero_grad()
        self.graphs.clear()
        if self.device.name == "cuda":
            torch.cuda.empty_cache()
        self.say(f"out of memory: {said}; the batch is the same")

    def hear(self, signals: float) -> None:
        """Take what all processes know of signals: none leaves while another begins the next step."""
        self.leaving = (self.stopping.asked or signal.SIGTERM) if signals else 0

    def leave_if_asked(self) -> None:
        """Save and leave once a signal has come."""
        if self.team.size == 1:  # nobody to wait for: a signal since the step's sums counts at once
            self.leaving = self.stopping.asked
        if self.leaving:
            self.save()
            told = f"finetune: stopped after step {self.state.step}; the same command goes on from there"
            raise Stopped(told, self.leaving)

    def note(self, row: dict[str, Any]) -> None:
        """Keep an evaluation, and the weights if they are the best so far; save."""
        state = self.state
        state.curve.append(row)
        standing.show(self._board, {name: row.get(name) for name in ("dev_wer", "general_wer")}, state.step)
        if row["dev_wer"] < state.best_wer:
            state.best_wer, state.best_epoch, state.bad_evaluations = row["dev_wer"], state.epoch, 0
            if self.team.first:
                standing.write(self.out / "best.pt", {"model": self._moved(), "row": row})
        elif self._can_thaw_more():
            state.thawed += 1
        else:
            state.bad_evaluations += 1
        self.save()

    def _can_thaw_more(self) -> bool:
        layers = self.core.config.decoder_layers + self.recipe.encoder_layers
        stalls = self.recipe.strategy == "progressive" and self.recipe.thaw == "stall"
        return stalls and self.state.thawed < layers - 1

    def _moved(self) -> dict[str, torch.Tensor]:
        """The tensors that training may have changed so far."""
        everything = self.recipe.strategy in ("progressive", "scratch")
        moved = {name for name, p in self.model.named_parameters() if everything or p.requires_grad}
        return {name: value.detach().cpu() for name, value in self.model.state_dict().items() if name in moved}

    def save(self) -> None:
        """Write the checkpoint and the curve, each whole or not at all."""
        self.state.seconds += time.monotonic() - self.clock_s
        self.clock_s = time.monotonic()
        if not self.team.first:
            return
        saved = {"model": self._moved(), "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(),
                 "progress": json.dumps(vars(self.state))}  # fmt: skip
        standing.write(self.out / "checkpoint.pt", saved)
        files.write_jsonl(self.out / "curve.jsonl", self.state.curve)

    def resume(self) -> Standing:
        """Go on from the checkpoint, if there is one."""
        path = self.out / "checkpoint.pt"
        if self.team.told(path.exists()):
            saved = standing.read_checkpoint(path)
            self.model.load_state_dict(saved["model"], strict=False)
            self.optimizer.load_state_dict(saved["optimizer"])
            if saved["scaler"]:  # none of a precision that needs none
                self.scaler.load_state_dict(saved["scaler"])
            self.state = Standing(**json.loads(saved["progress"]))
            self.say(f"finetune: goes on after epoch {self.state.epoch}, step {self.state.step}")
        return self.state

    def restore_best(self) -> None:
        """Put the best evaluation's weights into a plain model; adapters are kept apart as well as merged."""
        if self._board:
            self._board.close()
        if self.team.told((self.out / "best.pt").exists()):
            best = standing.read_checkpoint(self.out / "best.pt")
            self.model.load_state_dict(best["model"], strict=False)
            self.state.restored = best.get("row")
        if self.recipe.strategy == "lora":
            if self.team.first:
                strategies.save_adapters(self.model, self.whisper, self.out / "adapter")
            self.whisper.model = self.model.merge_and_unload()
        self.whisper.model.eval()
