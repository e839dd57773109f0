"""Adapting within a run: training, the choice of blend, and a saved model that was proved."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from speechft import encoding, files
from speechft.adapt import prompt as prompts
from speechft.adapt import retain, strategies
from speechft.adapt.steps import Item, Recipe
from speechft.adapt.team import Team
from speechft.adapt.train import train
from speechft.errors import InputError
from speechft.progress import Progress
from speechft.run import CHOOSING, Run
from speechft.score import terms as term_lists
from speechft.score import wer
from speechft.score.score import units
from speechft.transcription import hypotheses, prove_saved, store_of, term_texts
from speechft.whisper import load, tokens, windows

if TYPE_CHECKING:
    from speechft.whisper.load import Device, Whisper

log = logging.getLogger(__name__)

SMALLEST_BUDGET = 0.005  # absolute word error rate
CHOOSING_SHARE = 0.6  # of the budget may be used when choosing: the interval on unseen speech must fit inside all of it
BUDGET_SHARE = 0.1  # of the base's general word error rate


def adapt(run: Run, out: Path, team: Team) -> dict[str, Any]:
    """Train by the pipeline's recipe, choose a blend, save the model, reload it and decode one row.

    Returns:
        facts for the stage record: counts, trainable and frozen values, the choice, the device.
    """
    if run.pipeline.finetune.strategy == "prompt":
        return choose_prompt(run, out)
    whisper, device = run.load_base(), load.told_device()
    base = {name: parameter.detach().clone() for name, parameter in whisper.model.named_parameters()}
    whisper.trained = True
    recipe = recipe_of(run, whisper)
    planned = files.JsonLines(run.dir / "encode" / "windows.jsonl")
    items = [_item(number, row, whisper) for number, row in enumerate(planned)]
    texts = (clip["text"] for row in planned for clip in row["clips"])
    released = load.release_tokens(whisper, itertools.chain(texts, term_texts(run)))
    if recipe.replay_share and not any(item.replay for item in items):
        log.info("finetune: replay_share does nothing, as no general speech is there to replay (data.general)")
    views = {item.view for item in items if not item.replay}
    if recipe.epochs < len(views):
        log.warning(
            "finetune: %d epochs hear %d of the %d views (the clean one counts): raise finetune.epochs, or lower "
            "augment.views", recipe.epochs, recipe.epochs, len(views),
        )  # fmt: skip
    chooser = Chooser(run, whisper, device)
    counted = dict(zip(("trainable", "frozen"), _count(whisper, recipe), strict=True))
    log.info(
        "finetune: %s, %s values train and %s are frozen, learning rate %.2e, %d clips a step",
        recipe.strategy, f"{counted['trainable']:,}", f"{counted['frozen']:,}", recipe.learning_rate,
        recipe.batch_clips,
    )  # fmt: skip
    from_states = run.learns_from == "states"
    with Progress("finetune") as tell:
        state = train(
            whisper,
            items,
            recipe,
            device=device,
            inputs=store_of(run, "train").read if from_states else _features(planned, whisper),
            from_states=from_states,
            evaluate=chooser.measure,
            out=out,
            team=team,
            name_of=lambda number: _clips_of(planned[number]),
            say=log.info,
            progress=lambda step, total, loss: tell(step, total, f"loss {loss:.2f}"),
        )
    if not team.first:  # what follows is one process's work
        return {}
    tuned = None if recipe.strategy == "lora" else state.restored  # adapters have been merged since
    point, points, inside, budget = _choose_blend(run, whisper, base, chooser, state.curve[0], tuned)
    if recipe.strategy == "lora":
        strategies.scale_adapters(out / "adapter", point.alpha)
    load.save(whisper, out / "model")
    prove_saved(out / "model", run, whisper, device)
    choice = {
        "alpha": point.alpha, "inside_budget": inside, **_limits(budget), "best_epoch": state.best_epoch,
        "dev_wer_before": state.curve[0]["dev_wer"], "dev_wer": point.dev_wer,
        "general_dev_wer_before": state.curve[0].get("general_wer"), "general_dev_wer": point.general_wer,
        "points": [dataclasses.asdict(p) for p in points],
    }  # fmt: skip
    files.write_json(out / "choice.json", choice)
    clips = sum(len(row["clips"]) for row in planned)
    counts = {"in": clips, "out": clips, "rejected": {}, "steps": state.step}
    return {
        "counts": counts, "choice": choice, "suppressed_released": released, "device": device.label,
        "epochs_run": state.epoch,
        "steps": state.step, "recipe": dataclasses.asdict(recipe), "revision": whisper.revision, **counted,
    }  # fmt: skip


def choose_prompt(run: Run, out: Path) -> dict[str, Any]:
    """The part of the term list, as previous text, that is best on dev inside the budget; no weight changes.

    Raises:
        InputError: there is no term list.
    """
    whisper, device = run.load_base(), load.told_device()
    texts = [row.text or "" for row in run.rows("train")]
    terms = prompts.order(term_texts(run), texts)
    if not terms:
        raise InputError("finetune: strategy prompt gives the decoder a term list; name one in data.terms")
    released = load.release_tokens(whisper, texts + terms)
    chooser = Chooser(run, whisper, device)

    def spelled(share: float) -> str | None:
        return prompts.write(
            terms, share=share, count=lambda t: len(tokens.encode_text(whisper.tokenizer, t))
        ) or None  # fmt: skip

    def evaluate(share: float) -> tuple[float, float | None]:
        whisper.prompt = spelled(share)
        rates = chooser.measure()
        log.info("prompt of at most %.0f tokens: %s", share * tokens.MAX_PREVIOUS_TOKENS, _told(rates))
        return rates["dev_wer"], rates.get("general_wer")

    points = retain.sweep(prompts.SHARES, evaluate)
    budget = _budget(run, points[-1].general_wer)
    point, inside = retain.choose(points, base_general_wer=points[-1].general_wer, budget=_limits(budget)["limit"])
    whisper.prompt = spelled(point.alpha)
    load.save(whisper, out / "model")
    prove_saved(out / "model", run, whisper, device)
    choice = {
        "alpha": point.alpha, "prompt": whisper.prompt, "inside_budget": inside, **_limits(budget), "best_epoch": 0,
        "dev_wer_before": points[-1].dev_wer, "dev_wer": point.dev_wer,
        "general_dev_wer_before": points[-1].general_wer, "general_dev_wer": point.general_wer,
        "points": [dataclasses.asdict(p) for p in points],
    }  # fmt: skip
    files.write_json(out / "choice.json", choice)
    files.write_jsonl(out / "curve.jsonl", [])
    frozen = sum(p.numel() for p in whisper.model.parameters())
    return {
        "counts": {"in": len(terms), "out": len(points), "rejected": {}}, "choice": choice,
        "suppressed_released": released, "device": device.label, "epochs_run": 0, "steps": 0,
        "recipe": run.pipeline.finetune.model_dump(mode="json"), "trainable": 0, "frozen": frozen,
        "revision": whisper.revision,
    }  # fmt: skip


def recipe_of(run: Run, whisper: Whisper) -> Recipe:
    """The pipeline's settings, the size's defaults where it leaves them out."""
    settings = run.pipeline.finetune.model_dump(exclude={"alphas", "forgetting_budget"})
    reaches_encoder = settings["strategy"] != "progressive" or settings["encoder_layers"]
    strategy = settings["strategy"] if reaches_encoder else "decoder"
    defaults = strategies.size_defaults(whisper.model.config.d_model, strategy)
    settings = dataclasses.asdict(defaults) | {name: value for name, value in settings.items() if value is not None}
    settings["encoder_layers"] = min(settings["encoder_layers"], whisper.model.config.encoder_layers)
    return Recipe(**settings)


def _count(whisper: Whisper, recipe: Recipe) -> tuple[int, int]:
    """Values that train and values that stay."""
    if recipe.strategy == "lora":
        added = strategies.adapter_values(whisper.model, rank=recipe.lora_rank, encoder=recipe.lora_encoder)
        return added, sum(p.numel() for p in whisper.model.parameters())
    return strategies.freeze(
        whisper.model, recipe.strategy, upper_layers=recipe.upper_layers,
        thaw_encoder_layers=recipe.encoder_layers, epoch=recipe.epochs, epochs=recipe.epochs,
    )  # fmt: skip


def _item(number: int, row: dict[str, Any], whisper: Whisper) -> Item:
    segments = tuple(
        tokens.Segment(
            tokens=tokens.encode_text(whisper.tokenizer, part["text"]),
            start_s=part["start_s"],
            end_s=part["end_s"],
        )
        for clip in row["clips"]
        for part in clip.get("segments") or [clip]
    )
    return Item(
        number=number, segments=segments, view=row["view"], replay=row["replay"], clips=len(row["clips"])
    )  # fmt: skip


def _features(planned: files.JsonLines, whisper: Whisper) -> Callable[[Sequence[int]], torch.Tensor]:
    """Log-mels of training windows from audio, for strategies that change the encoder."""

    def read(numbers: Sequence[int]) -> torch.Tensor:
        rows = [planned[number] for number in numbers]
        features = [windows.log_mel(encoding.sound(row), n_mels=whisper.n_mels) for row in rows]
        return windows.fill(torch.stack(features), [encoding.end(row) for row in rows])

    return read


def _clips_of(window: Mapping[str, Any]) -> str:
    """The rows that a window holds, by id."""
    return " ".join(str(clip["id"]) for clip in window["clips"])


class Chooser:
    """Scores the model as it stands on the rows that may choose, by generating."""

    def __init__(self, run: Run, whisper: Whisper, device: Device) -> None:
        self.run, self.whisper, self.device = run, whisper, device
        terms = run.pipeline.data.terms
        self.rows = {role: run.rows(role) for role in CHOOSING}
        if not self.rows["dev"]:
            raise InputError(
                "finetune: there is no dev speech to choose with; name data.dev, or give more training rows"
            )
        self.split = units(
            self.rows["dev"], normaliser=run.pipeline.score.normaliser,
            terms=term_lists.read_terms(terms) if terms else None, language=run.pipeline.model.language,
        ).split  # fmt: skip

    def measure(self) -> dict[str, float]:
        """Error rates of the current weights: dev_wer, and general_wer where there is general speech.

        They are of what the score will count: characters where the language puts no spaces between words.
        """
        rates = {"dev_wer": self._rate("dev")}
        if self.rows["general_dev"]:
            rates["general_wer"] = self._rate("general_dev")
        return rates

    def _rate(self, role: str) -> float:
        rows = self.rows[role]
        texts = hypotheses(self.run, self.whisper, rows, self.device, store="choosing")
        references = {row.id: row.text or "" for row in rows}
        found = {row.id: hypothesis for row, hypothesis in zip(rows, texts, strict=True)}
        rate = wer.total(row.errors for row in wer.align(references, found, self.split)).rate
        if rate is None:
            raise InputError(f"finetune: the {role} rows hold no words to choose by; give transcripts")
        return rate


def _choose_blend(
    run: Run, whisper: Whisper, base: dict[str, torch.Tensor], chooser: Chooser, before: dict[str, Any],
    measured: dict[str, Any] | None,
) -> tuple[retain.Point, list[retain.Point], bool, float | None]:  # fmt: skip
    """Sweep alpha between base and tuned weights on dev and general_dev (WiSE-FT), and leave the best in the model.

    `measured` holds the rates of the tuned weights where they are known, as alpha 1 need not be decoded again then.
    """
    tuned = retain.moved(whisper.model, base)
    general_before = before.get("general_wer")
    budget = _budget(run, general_before)

    def evaluate(alpha: float) -> tuple[float, float | None]:
        retain.blend(whisper.model, base, tuned, alpha)
        rates = measured if alpha == 1.0 and measured else chooser.measure()
        log.info("blend %.3f: %s", alpha, _told(rates))
        return rates["dev_wer"], rates.get("general_wer")

    points = retain.sweep(run.pipeline.finetune.blends, evaluate)
    point, inside = retain.choose(points, base_general_wer=general_before, budget=_limits(budget)["limit"])
    retain.blend(whisper.model, base, tuned, point.alpha)
    return point, points, inside, budget


def _budget(run: Run, general_before: float | None) -> float | None:
    """The forgetting budget: the pipeline's, or 10 % of the base's general rate; None without general speech."""
    if general_before is None:
        return None
    told = run.pipeline.finetune.forgetting_budget
    return max(SMALLEST_BUDGET, BUDGET_SHARE * general_before) if told is None else told


def _limits(budget: float | None) -> dict[str, float | None]:
    """The budget, and the part of it that may be used when choosing."""
    return {"budget": budget, "limit": None if budget is None else budget * CHOOSING_SHARE}


def _told(rates: Mapping[str, Any]) -> str:
    named = {"dev": rates["dev_wer"], "general": rates.get("general_wer")}
    return ", ".join(f"{name} WER {rate:.3f}" for name, rate in named.items() if rate is not None)
