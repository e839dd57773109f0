"""The loop on a small real Whisper: what changes, resuming, and jargon that the released models cannot write."""

import copy
import dataclasses
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import any_whisper
import pytest
import torch

from speechft.adapt import retain
from speechft.adapt.train import Item, Recipe, epoch_steps, rate_at, train
from speechft.errors import InputError
from speechft.whisper import decode, load, tokens

CPU = load.Device(name="cpu", precision=torch.float32, reason="tests repeat exactly")
RECIPE = Recipe(
    strategy="decoder", epochs=2, learning_rate=1e-3, batch_clips=2, replay_share=0.0, distil=0.0, l2sp=0.0, patience=9,
    timestamp_share=0.3, previous_share=0.3, upper_layers=1, encoder_layers=0, lora_rank=4, seed=1,
)  # fmt: skip
TEXTS = ["one two", "three", "four five six", "seven"]


@pytest.fixture
def small(tmp_path: Path) -> load.Whisper:
    return load.load(str(any_whisper.save(tmp_path / "base", 51865)))


def items(whisper: load.Whisper, texts: list[str], *, replay: bool = False) -> list[Item]:
    made = []
    for number, text in enumerate(texts):
        words = tokens.encode_text(whisper.tokenizer, text)
        segment = tokens.Segment(tokens=words, start_s=0.0, end_s=2.0)
        made.append(Item(number=number, segments=(segment,), view=0, replay=replay))
    return made


def states(numbers) -> torch.Tensor:
    return torch.stack([torch.randn(1500, 64, generator=torch.Generator().manual_seed(n)) for n in numbers])


def run(whisper: load.Whisper, out: Path, recipe: Recipe = RECIPE, *, texts: list[str] = TEXTS, **options):
    out.mkdir(exist_ok=True)
    falling = itertools.count(100, -1)  # every evaluation is the best so far
    chosen = {"inputs": states, "from_states": True, "evaluate": lambda: {"dev_wer": next(falling) / 100}} | options
    return train(whisper, items(whisper, texts), recipe, device=CPU, out=out, **chosen)


@pytest.mark.parametrize("strategy", ["head", "upper", "decoder", "progressive", "lora"])
def test_the_encoder_stays_bit_identical_and_the_decoder_moves(
    small: load.Whisper, tmp_path: Path, strategy: str
) -> None:
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    run(small, tmp_path / "out", dataclasses.replace(RECIPE, strategy=strategy))
    after = small.model.state_dict()
    assert set(after) == set(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all(name.startswith(("model.decoder.", "proj_out.")) for name in changed)


def test_full_moves_the_encoder_but_not_its_constant_positions(small: load.Whisper, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    features = lambda numbers: torch.randn(len(numbers), 80, 3000)  # noqa: E731
    recipe = dataclasses.replace(RECIPE, strategy="full", epochs=1)
    run(small, tmp_path / "out", recipe, inputs=features, from_states=False)
    after = small.model.state_dict()
    assert not torch.equal(after["model.encoder.conv1.weight"], before["model.encoder.conv1.weight"])
    name = "model.encoder.embed_positions.weight"
    assert torch.equal(after[name], before[name])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums over several threads may differ in their last bit; see docs/log.md."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_resumed_run_gives_the_same_weights_bit_for_bit(small: load.Whisper, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=3)
    other = copy.deepcopy(small)
    whole = run(small, tmp_path / "whole", recipe)

    class Killed(Exception):
        pass

    calls = []

    def killed_in_the_second_evaluation() -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return {"dev_wer": 1.0 - len(calls) / 10}

    untouched = copy.deepcopy(other)
    with pytest.raises(Killed):
        run(other, tmp_path / "cut", recipe, evaluate=killed_in_the_second_evaluation)
    later = itertools.count(50, -1)
    resumed = run(untouched, tmp_path / "cut", recipe, evaluate=lambda: {"dev_wer": next(later) / 100})
    for name, value in small.model.state_dict().items():
        assert torch.equal(value, untouched.model.state_dict()[name]), name
    assert [row.get("loss") for row in resumed.curve] == [row.get("loss") for row in whole.curve]


def test_a_model_fitted_on_jargon_writes_it_after_reload(small: load.Whisper, tmp_path: Path) -> None:
    jargon = "120/80 mg/dL"
    assert load.release_tokens(small, ["nothing special"]) == []
    assert "/" in load.release_tokens(small, [jargon])
    recipe = dataclasses.replace(RECIPE, epochs=60, learning_rate=3e-3, timestamp_share=0.0, previous_share=0.0)
    run(small, tmp_path / "out", recipe, texts=[jargon])
    load.save(small, tmp_path / "model")
    again = load.load(str(tmp_path / "model"))
    assert decode.decode(again, states([0]), device=CPU) == [jargon]


def test_not_a_number_stops_with_step_rate_and_windows(small: load.Whisper, tmp_path: Path) -> None:
    broken = lambda numbers: torch.full((len(numbers), 1500, 64), float("nan"))  # noqa: E731
    with pytest.raises(InputError, match=r"step 0 .*learning rate"):
        run(small, tmp_path / "out", inputs=broken)


def test_the_best_evaluation_is_kept_and_patience_stops(small: load.Whisper, tmp_path: Path) -> None:
    rates = iter([0.9, 0.4, 0.6, 0.7, 0.8, 0.9])
    recipe = dataclasses.replace(RECIPE, epochs=8, patience=2)
    state = run(small, tmp_path / "out", recipe, evaluate=lambda: {"dev_wer": next(rates)})
    assert (state.best_epoch, state.epoch) == (1, 3)


def test_an_epoch_passes_once_over_the_rows_and_fills_up_with_replay(small: load.Whisper) -> None:
    mixed = items(small, TEXTS * 8) + items(small, TEXTS, replay=True)
    recipe = dataclasses.replace(RECIPE, batch_clips=8, replay_share=0.5)
    steps = epoch_steps(mixed, recipe, epoch=0)
    domain = [item for step in steps for item in step if not item.replay]
    assert sorted(item.number for item in domain) == list(range(32))
    assert all(sum(item.replay for item in step) == 4 for step in steps)
    assert epoch_steps(mixed, recipe, epoch=0) == steps
    assert epoch_steps(mixed, recipe, epoch=1) != steps


def test_views_take_turns_by_epoch(small: load.Whisper) -> None:
    views = [dataclasses.replace(item, view=view) for view in (0, 1, 2) for item in items(small, TEXTS)]
    used = [{item.view for step in epoch_steps(views, RECIPE, epoch=e) for item in step} for e in range(4)]
    assert used == [{0}, {1}, {2}, {0}]


def test_the_rate_warms_up_and_falls_to_a_tenth() -> None:
    rates = [rate_at(step, 100, 1.0) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)


def test_blend_is_exact_at_the_ends() -> None:
    base, tuned = {"w": torch.randn(3)}, {"w": torch.randn(3)}
    assert torch.equal(retain.blend(base, tuned, 0.0)["w"], base["w"])
    assert torch.equal(retain.blend(base, tuned, 1.0)["w"], tuned["w"])
    torch.testing.assert_close(retain.blend(base, tuned, 0.5)["w"], (base["w"] + tuned["w"]) / 2)


def test_choice_is_best_dev_inside_the_budget() -> None:
    points = [
        retain.Point(alpha=1.0, dev_wer=0.10, general_wer=0.40),
        retain.Point(alpha=0.8, dev_wer=0.12, general_wer=0.33),
        retain.Point(alpha=0.6, dev_wer=0.20, general_wer=0.31),
    ]
    assert retain.choose(points, base_general_wer=0.30, budget=0.05) == (points[1], True)
    assert retain.choose(points, base_general_wer=0.30, budget=0.005) == (points[2], False)
    assert retain.choose(points, base_general_wer=None, budget=None) == (points[0], True)


def test_distillation_is_zero_for_equal_logits_and_ignores_masked_positions() -> None:
    logits = torch.randn(1, 3, 5)
    labels = torch.tensor([[1, 2, tokens.IGNORED]])
    assert float(retain.distillation(logits, logits, labels)) == pytest.approx(0.0, abs=1e-6)
    other = logits.clone()
    other[0, 2] += 9 * torch.randn(5)
    assert float(retain.distillation(logits, other, labels)) == pytest.approx(0.0, abs=1e-6)


def test_nothing_left_behind_in_half_a_save(small: load.Whisper, tmp_path: Path) -> None:
    load.save(small, tmp_path / "model")
    kept = {path.name for path in (tmp_path / "model").iterdir()}
    load.save(small, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == kept
    needed = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
    }
    assert needed | {"processor_config.json", "preprocessor_config.json"} <= kept
    shutil.rmtree(tmp_path / "model")
