"""The loop on a small real Whisper: what changes, resuming, and jargon that the released models cannot write."""

import contextlib
import copy
import dataclasses
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import any_whisper
import peft
import pytest
import torch
import transformers

from speechft.adapt import passes, retain, strategies, vocabulary
from speechft.adapt import train as training
from speechft.adapt.steps import Item, Recipe, epoch_steps, make_examples, rate_at
from speechft.adapt.train import train
from speechft.errors import InputError, Stopped
from speechft.whisper import decode, load, tokens

CPU = load.Device(name="cpu", precision=torch.float32, reason="tests repeat exactly")
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
RECIPE = Recipe(
    strategy="decoder", epochs=2, learning_rate=1e-3, batch_clips=2, replay_share=0.0, distil=0.0, l2sp=0.0, patience=9,
    timestamp_share=0.3, previous_share=0.3, upper_layers=1, encoder_layers=0, lora_rank=4, seed=1,
)  # fmt: skip
TEXTS = ["one two", "three", "four five six", "seven"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> load.Whisper:
    return load.load(str(any_whisper.save(tmp_path_factory.mktemp("saved"), 51865)))


@pytest.fixture
def small(saved: load.Whisper, tmp_path: Path) -> load.Whisper:
    """A model of the test's own, whose files are in its `base`."""
    (tmp_path / "base").symlink_to(saved.source or "")
    return dataclasses.replace(copied(saved), name=str(tmp_path / "base"))


def copied(whisper: load.Whisper) -> load.Whisper:
    """With weights of its own; the tokenizer, which takes longest to make, is shared."""
    return dataclasses.replace(whisper, model=copy.deepcopy(whisper.model))


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


def log_mels(numbers) -> torch.Tensor:
    return torch.stack([torch.randn(80, 3000, generator=torch.Generator().manual_seed(n)) for n in numbers])


FROM_STATES = {"inputs": states, "from_states": True}
FROM_AUDIO = {"inputs": log_mels, "from_states": False}


@pytest.mark.parametrize(
    ("strategy", "changes", "source"),
    [
        ("head", {}, FROM_STATES),
        ("upper", {}, FROM_STATES),
        ("decoder", {}, FROM_STATES),
        ("progressive", {}, FROM_STATES),
        ("lora", {}, FROM_STATES),
        ("progressive", {"encoder_layers": 1}, FROM_AUDIO),
        ("lora", {"lora_encoder": True}, FROM_AUDIO),
        ("full", {}, FROM_AUDIO),
        ("scratch", {}, FROM_AUDIO),
    ],
)
def test_exactly_the_strategys_tensors_change(
    small: load.Whisper, tmp_path: Path, strategy: str, changes: dict, source: dict
) -> None:
    """All others stay bit-identical; of the encoder what is not named, and always its constant positions."""
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    run(small, tmp_path / "out", dataclasses.replace(RECIPE, strategy=strategy, **changes), **source)
    after = small.model.state_dict()
    assert set(after) == set(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    if strategy == "lora":
        matrices = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "out_proj.weight", "fc1.weight", "fc2.weight")
        sides = ("model.decoder.layers.", "model.encoder.layers.")[: 2 if changes else 1]
        expected = {name for name in before if name.startswith(sides) and name.endswith(matrices)}
    else:
        names = [name for name, _ in small.model.named_parameters()]
        expected = set(
            strategies.trainable(
                names, strategy, decoder_layers=2, encoder_layers=2, upper_layers=1, epoch=1,
                thaw_encoder_layers=changes.get("encoder_layers", 0),
            )
        )  # fmt: skip
        expected |= {"proj_out.weight"} if strategies.TOKENS in expected else set()  # the same tensor
    assert changed == expected


def test_scratch_takes_no_weight_of_the_base_but_measures_it(small: load.Whisper, tmp_path: Path) -> None:
    """Two bases of the same dimensions end alike, with the constant positions of Whisper's encoder."""
    ended, measured = [], []
    for value in (0.1, 0.2):
        with torch.no_grad():
            for parameter in small.model.parameters():
                parameter.fill_(value)
        first = small.model.model.decoder.layer_norm.bias

        def evaluate(first: torch.Tensor = first) -> dict[str, float]:
            measured.append(float(first.detach().mean()))
            return {"dev_wer": 1.0 / len(measured)}

        recipe = dataclasses.replace(RECIPE, strategy="scratch", epochs=1)
        run(small, tmp_path / str(value), recipe, evaluate=evaluate, **FROM_AUDIO)
        ended.append({name: held.clone() for name, held in small.model.state_dict().items()})
    assert all(torch.equal(held, ended[1][name]) for name, held in ended[0].items())
    assert measured[::2] == pytest.approx([0.1, 0.2])  # before a step; after an epoch it is near where norms begin
    assert measured[1::2] == pytest.approx([0.0, 0.0], abs=0.01)
    positions = ended[0]["model.encoder.embed_positions.weight"]
    assert torch.allclose(positions[7, :2], torch.sin(torch.tensor([7.0, 7 * 10_000 ** (-1 / 31)])), atol=1e-6)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums over several threads may differ in their last bit; see docs/log.md."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("strategy", "changes", "source"),
    [
        ("decoder", {"l2sp": 1e-3}, FROM_STATES),
        ("lora", {}, FROM_STATES),
        ("lora", {"lora_encoder": True}, FROM_AUDIO),
        ("progressive", {}, FROM_STATES),
        ("full", {}, FROM_AUDIO),
        ("scratch", {}, FROM_AUDIO),
    ],
)
def test_a_resumed_run_gives_the_same_weights_bit_for_bit(
    small: load.Whisper, tmp_path: Path, strategy: str, changes: dict, source: dict
) -> None:
    recipe = dataclasses.replace(RECIPE, strategy=strategy, epochs=3, **changes)
    other = copied(small)
    whole = run(small, tmp_path / "whole", recipe, **source)

    class Killed(Exception):
        pass

    calls = []

    def killed_in_the_second_evaluation() -> dict[str, float]:
        calls.append(1)
        if len(calls) == 3:
            raise Killed
        return {"dev_wer": 1.0 - len(calls) / 10}

    untouched = copied(other)
    with pytest.raises(Killed):
        run(other, tmp_path / "cut", recipe, evaluate=killed_in_the_second_evaluation, **source)
    later = itertools.count(50, -1)
    resumed = run(untouched, tmp_path / "cut", recipe, evaluate=lambda: {"dev_wer": next(later) / 100}, **source)
    for name, value in small.model.state_dict().items():
        assert torch.equal(value, untouched.model.state_dict()[name]), name
    assert [row.get("loss") for row in resumed.curve] == [row.get("loss") for row in whole.curve]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_after_the_step_and_the_rest_is_bit_for_bit_the_same(
    small: load.Whisper, tmp_path: Path, number: signal.Signals
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=3)
    cut, again = copied(small), copied(small)
    texts = TEXTS * 3  # six steps an epoch
    whole = run(small, tmp_path / "whole", recipe, texts=texts)
    handler = signal.getsignal(number)

    def in_the_ninth_step(step: int, total: int, loss: float) -> None:
        if step == 9:
            os.kill(os.getpid(), number)

    with pytest.raises(Stopped, match="after step 9") as stopped:
        run(cut, tmp_path / "cut", recipe, texts=texts, progress=in_the_ninth_step)
    assert stopped.value.status == 128 + number
    assert signal.getsignal(number) is handler
    steps = []
    later = itertools.count(50, -1)
    resumed = run(
        again, tmp_path / "cut", recipe, texts=texts, evaluate=lambda: {"dev_wer": next(later) / 100},
        progress=lambda step, total, loss: steps.append(step),
    )  # fmt: skip
    assert steps == list(range(10, 19))
    for name, value in small.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert [row.get("loss") for row in resumed.curve] == [row.get("loss") for row in whole.curve]


@pytest.mark.usefixtures("one_thread")
def test_a_kill_between_evaluations_goes_on_from_the_last_save_with_the_same_losses(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a teacher and replay; saved after every step, as every ten minutes."""
    recipe = dataclasses.replace(RECIPE, epochs=2, replay_share=0.5, distil=0.5, l2sp=1e-3)
    mixed = items(small, TEXTS) + items(small, ["eight nine", "ten"], replay=True)
    cut, again = copied(small), copied(small)
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)

    class Killed(BaseException):
        pass

    def losses_of(whisper: load.Whisper, name: str, killed_in: int = 0) -> list[tuple[int, float]]:
        told: list[tuple[int, float]] = []

        def tell(step: int, total: int, loss: float) -> None:
            if step == killed_in:
                raise Killed
            told.append((step, loss))

        (tmp_path / name).mkdir(exist_ok=True)
        with contextlib.suppress(Killed):
            train(
                whisper, mixed, recipe, device=CPU, out=tmp_path / name, progress=tell,
                evaluate=lambda: {"dev_wer": 0.5}, **FROM_STATES,
            )  # fmt: skip
        return told

    whole = losses_of(small, "whole")
    first = losses_of(cut, "cut", killed_in=3)
    assert (len(first), len(whole)) == (2, 8)
    assert first + losses_of(again, "cut") == whole
    assert all(torch.equal(value, again.model.state_dict()[name]) for name, value in small.model.state_dict().items())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_pass_and_keeps_the_batch(
    small: load.Whisper, tmp_path: Path, error: RuntimeError
) -> None:
    recipe = dataclasses.replace(RECIPE, batch_clips=4, replay_share=0.25, distil=0.5, l2sp=1e-3)
    other, said = copied(small), []
    mixed = items(small, TEXTS * 3) + items(small, ["eight nine"], replay=True)
    whole = train(
        small, mixed, recipe, device=CPU, inputs=states, from_states=True, out=tmp_path,
        evaluate=lambda: {"dev_wer": 1.0},
    )  # fmt: skip

    def full(module, args, kwargs) -> None:
        if len(kwargs["input_ids"]) > 1 and torch.is_grad_enabled():
            raise error

    other.model.model.decoder.register_forward_pre_hook(full, with_kwargs=True)
    out = tmp_path / "other"
    out.mkdir()
    halved = train(
        other, mixed, recipe, device=CPU, inputs=states, from_states=True, out=out, evaluate=lambda: {"dev_wer": 1.0},
        say=said.append,
    )  # fmt: skip
    assert [line for line in said if "out of memory" in line][-1].split("in ")[1].startswith("4 parts")
    assert halved.step == whole.step
    assert [row["loss"] for row in halved.curve[1:]] == pytest.approx(
        [row["loss"] for row in whole.curve[1:]], rel=1e-4
    )
    for name, value in small.model.state_dict().items():
        torch.testing.assert_close(value, other.model.state_dict()[name], rtol=1e-3, atol=1e-4)


def test_graphs_are_given_up_before_windows_are_split(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, said = [], []

    def recorded(self, call, features, tensors, parameters):
        made.append(self)
        places, value = tuple(tensor.clone() for tensor in tensors), torch.zeros(())
        graph = types.SimpleNamespace(replay=lambda: value.copy_(call(features, *places)))
        return training.graphs._Graph(graph=graph, tensors=places, value=value)

    def full(module, args, kwargs) -> None:
        if torch.is_grad_enabled() and made and made[0].held:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training.graphs, "are_possible", lambda *given, **options: True)
    monkeypatch.setattr(training.graphs.Graphs, "_recorded", recorded)
    small.model.model.decoder.register_forward_pre_hook(full, with_kwargs=True)
    state = run(small, tmp_path / "out", dataclasses.replace(RECIPE, epochs=4), say=said.append)
    assert state.step == 8
    assert made
    told = [line for line in said if "memory" in line]
    assert told == ["out of memory: passes are no longer kept as graphs; the batch is the same"]


def test_a_step_that_cannot_be_read_for_memory_is_an_error(small: load.Whisper, tmp_path: Path) -> None:
    def full(numbers):
        raise MemoryError("Unable to allocate 2.00 GiB")

    with pytest.raises(InputError, match=r"does not fit into memory; lower finetune\.batch_clips"):
        run(small, tmp_path / "out", inputs=full)


def test_one_window_too_large_is_an_error(small: load.Whisper, tmp_path: Path) -> None:
    def full(module, args, kwargs) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    small.model.model.decoder.register_forward_pre_hook(full, with_kwargs=True)
    with pytest.raises(InputError, match="one window alone does not fit"):
        run(small, tmp_path / "out")


def test_moments_that_do_not_fit_are_an_error(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given, **options) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.optim.AdamW, "step", full)
    with pytest.raises(InputError, match="what the optimiser keeps does not fit into memory; adapt a smaller model"):
        run(small, tmp_path / "out")


def test_a_growing_loss_stops_and_names_weights_from_before_it_grew(small: load.Whisper, tmp_path: Path) -> None:
    """The last checkpoint may hold weights that had begun to diverge; the best evaluation's do not."""
    untouched = copied(small)
    recipe = dataclasses.replace(RECIPE, learning_rate=3.0, epochs=40)
    rates = itertools.chain([0.9, 0.5], itertools.repeat(1.0))
    with pytest.raises(
        InputError, match=r"and growing, at step \d+ \(rows \d.*learning rate.*last good checkpoint is .*best\.pt"
    ):
        run(small, tmp_path / "out", recipe, texts=TEXTS * 2, evaluate=lambda: {"dev_wer": next(rates)})
    best = torch.load(tmp_path / "out" / "best.pt", weights_only=True)
    assert best["row"]["epoch"] == 5  # 40 epochs are evaluated every fifth
    assert all(torch.isfinite(value).all() for value in best["model"].values())
    moved = best["model"]["model.decoder.layer_norm.weight"]
    assert not torch.equal(moved, untouched.model.state_dict()["model.decoder.layer_norm.weight"])


def test_progressive_thaws_when_dev_stalls(small: load.Whisper, tmp_path: Path) -> None:
    """Of two decoder layers the upper one trains, until dev WER stops falling; then both; then patience counts."""
    recipe = dataclasses.replace(RECIPE, strategy="progressive", thaw="stall", epochs=9, patience=1)
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    rates, lower = iter([0.9, 0.5, 0.4, 0.4, 0.3, 0.3, 0.2]), []

    def measure() -> dict[str, float]:
        moved = [n for n, v in small.model.state_dict().items() if not torch.equal(v, before[n])]
        lower.append(any("decoder.layers.0." in name for name in moved))
        return {"dev_wer": next(rates)}

    state = run(small, tmp_path / "out", recipe, evaluate=measure)
    assert lower == [False, False, False, False, True, True]
    assert (state.epoch, state.thawed, state.best_epoch) == (5, 1, 4)


def test_progressive_thaws_by_epoch(small: load.Whisper, tmp_path: Path) -> None:
    """Of two decoder layers the upper one in the first of four epochs, from the second on both and the tokens."""
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    moved: list[set[str]] = []

    def measure() -> dict[str, float]:
        moved.append({n for n, v in small.model.state_dict().items() if not torch.equal(v, before[n])})
        return {"dev_wer": 0.5}

    run(small, tmp_path / "out", dataclasses.replace(RECIPE, strategy="progressive", epochs=4), evaluate=measure)
    whole = {name for name in before if name.startswith("model.decoder.")} | {"proj_out.weight"}
    upper = {name for name in whole if name.startswith(("model.decoder.layers.1.", "model.decoder.layer_norm."))}
    assert moved == [set(), upper, whole, whole, whole]


def test_features_of_the_next_step_are_read_while_one_is_computed(small: load.Whisper, tmp_path: Path) -> None:
    """And never all logits at once: the output layer is not called, its matrix is used in pieces."""
    reading, order = threading.Event(), list[str]()

    def read(numbers) -> torch.Tensor:
        order.append("read")
        if len(order) > 1:
            reading.set()
        return states(numbers)

    def forward(module, args, kwargs) -> None:
        if torch.is_grad_enabled() and "step" not in order:
            assert reading.wait(30)  # the second step's features are asked for before the first step is done
            order.append("step")

    def never(module, args) -> None:
        raise AssertionError("logits of every position at once")

    small.model.model.decoder.register_forward_pre_hook(forward, with_kwargs=True)
    small.model.proj_out.register_forward_pre_hook(never)
    run(small, tmp_path / "out", dataclasses.replace(RECIPE, epochs=1), inputs=read)
    assert order[:3] == ["read", "read", "step"]


def test_a_share_of_windows_gets_timestamps_and_a_share_previous_text(small: load.Whisper) -> None:
    many = items(small, TEXTS * 250)
    recipe = dataclasses.replace(RECIPE, timestamp_share=0.3, previous_share=0.1)
    pool = [segment.tokens for item in many for segment in item.segments]
    made = make_examples(small.ids, many, recipe, step=7, pool=pool)
    assert made == make_examples(small.ids, many, recipe, step=7, pool=pool)
    stamped = sum(any(label >= small.ids.first_timestamp for label in example.labels) for example in made)
    told = sum(small.ids.previous in example.decoder_input_ids for example in made)
    assert stamped == pytest.approx(300, abs=50)
    assert told == pytest.approx(100, abs=35)
    assert made != make_examples(small.ids, many, recipe, step=8, pool=pool)


def test_adapters_are_kept_apart_and_merged(small: load.Whisper, tmp_path: Path) -> None:
    base = load.load(str(tmp_path / "base"))
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    features = lambda numbers: torch.randn(  # noqa: E731
        len(numbers), 80, 3000, generator=torch.Generator().manual_seed(1)
    )
    recipe = dataclasses.replace(RECIPE, strategy="lora", lora_encoder=True, epochs=2)
    run(small, tmp_path / "out", recipe, inputs=features, from_states=False)
    merged = small.model.state_dict()
    changed = {name for name, value in merged.items() if not torch.equal(value, before[name])}
    assert {name.split(".")[1] for name in changed} == {"encoder", "decoder"}
    assert all(name.endswith(("_proj.weight", "fc1.weight", "fc2.weight")) for name in changed)
    loaded = peft.PeftModel.from_pretrained(base.model, tmp_path / "out" / "adapter").merge_and_unload()
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, merged[name])
    strategies.scale_adapters(tmp_path / "out" / "adapter", 0.5)
    again = load.load(str(tmp_path / "base"))
    blended = peft.PeftModel.from_pretrained(again.model, tmp_path / "out" / "adapter").merge_and_unload()
    for name, value in merged.items():
        torch.testing.assert_close(blended.state_dict()[name], torch.lerp(before[name], value, 0.5))
    load.save(small, tmp_path / "model")
    saved = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "model").state_dict()
    for name, value in merged.items():
        torch.testing.assert_close(saved[name], value, msg=name)
    apart = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "base")
    apart.load_adapter(str(tmp_path / "out" / "adapter"))  # now at half its strength
    blended.eval(), apart.eval()
    given = {"input_features": features([0]), "decoder_input_ids": torch.tensor([[50257, 11, 12]])}
    with torch.no_grad():
        torch.testing.assert_close(apart(**given).logits, blended(**given).logits, atol=1e-4, rtol=1e-4)


def test_adapters_name_their_base_and_keep_its_list_of_tokens(small: load.Whisper, tmp_path: Path) -> None:
    small.name, small.revision = "openai/whisper-tiny", "169d4a4341b33bc18d8881c4b69c2e104e1cc0af"
    small.model.generation_config.suppress_tokens = [1, 2]
    run(small, tmp_path / "out", dataclasses.replace(RECIPE, strategy="lora"))
    told = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == (small.name, small.revision)
    kept = transformers.GenerationConfig.from_pretrained(tmp_path / "out" / "adapter")
    assert kept.suppress_tokens == [1, 2]


def test_a_model_fitted_on_jargon_writes_it_after_reload(small: load.Whisper, tmp_path: Path) -> None:
    jargon = "120/80 mg/dL"
    assert load.release_tokens(small, ["nothing special"]) == []
    assert "/" in load.release_tokens(small, [jargon])
    recipe = dataclasses.replace(RECIPE, epochs=30, learning_rate=3e-3, timestamp_share=0.0, previous_share=0.0)
    run(small, tmp_path / "out", recipe, texts=[jargon])
    load.save(small, tmp_path / "model")
    again = load.load(str(tmp_path / "model"))
    assert decode.decode(again, states([0]), device=CPU) == [jargon]


def test_a_teacher_hears_with_its_own_encoder(small: load.Whisper, tmp_path: Path) -> None:
    """Where the encoder trains, the base's decoder must not be given the tuned encoder's states."""
    recipe = dataclasses.replace(RECIPE, strategy="full", epochs=3, replay_share=0.5, distil=1.0, learning_rate=1e-2)
    recipe = dataclasses.replace(recipe, timestamp_share=0.0, previous_share=0.0)
    mixed = items(small, TEXTS) + items(small, ["eight nine"], replay=True)
    base = copy.deepcopy(small.model.model)
    taught, given = [], torch.randn(1, 80, 3000)
    expected = base.encoder(given).last_hidden_state
    loss = vocabulary.loss

    def noted(*args, teacher=None, **kwargs):
        taught.append(teacher)
        return loss(*args, teacher=teacher, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "loss", noted)
        train(
            small, mixed, recipe, device=CPU, inputs=lambda numbers: given.expand(len(numbers), -1, -1),
            from_states=False, out=tmp_path, evaluate=lambda: {"dev_wer": 1.0},
        )  # fmt: skip
    assert not torch.allclose(small.model.model.encoder(given).last_hidden_state, expected, atol=1e-2)
    label = tokens.example(small.ids, mixed[-1].segments, timestamps=False)
    said = base.decoder(input_ids=torch.tensor([label.decoder_input_ids]), encoder_hidden_states=expected)
    first = said.last_hidden_state[0][torch.tensor(label.labels) != tokens.IGNORED][0]
    assert torch.allclose(taught[-1].hidden[0], first, atol=1e-4)


def test_adapters_are_counted_before_there_are_any(small: load.Whisper) -> None:
    for encoder in (False, True):
        expected = strategies.adapter_values(small.model, rank=4, encoder=encoder)
        model = strategies.with_adapters(copy.deepcopy(small.model), rank=4, encoder=encoder)
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected > 0


def test_adapters_begin_the_same_way_for_a_seed(small: load.Whisper, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, strategy="lora", epochs=1)
    whispers = [load.load(str(tmp_path / "base")) for _ in range(2)]
    for number, whisper in enumerate(whispers):
        torch.rand(number)  # what was drawn before must not matter
        run(whisper, tmp_path / str(number), recipe)
    one, two = (whisper.model.state_dict() for whisper in whispers)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_gradient_without_bound_keeps_the_last_good_weights(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = small.model.model.decoder.layer_norm.weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(InputError, match=r"the gradient is (nan|inf) at step 0 \(rows"):
        run(small, tmp_path / "out")
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in saved.values())


def test_windows_of_like_lengths_share_a_pass_in_the_cheapest_way() -> None:
    assert passes.by_length([9, 100, 10, 9, 101], at_most=9, extra=50) == [[0, 3, 2], [1, 4]]
    assert passes.by_length([9, 100, 10, 9, 101], at_most=9, extra=10**9) == [[0, 3, 2, 1, 4]]
    assert passes.by_length([9] * 5, at_most=2, extra=50) == [[0], [1, 2], [3, 4]]
    rng = random.Random(1)
    for _ in range(50):
        lengths, extra = [rng.randrange(1, 60) for _ in range(7)], rng.randrange(40)
        chosen = passes.by_length(lengths, at_most=4, extra=extra)
        assert sorted(itertools.chain(*chosen)) == list(range(7))
        assert max(map(len, chosen)) <= 4
        in_order = sorted(lengths)
        cuts = (c for n in range(7) for c in itertools.combinations(range(1, 7), n))
        ways = ([in_order[a:b] for a, b in itertools.pairwise((0, *c, 7))] for c in cuts)
        cheapest = min(sum(extra + len(w) * w[-1] for w in way) for way in ways if max(map(len, way)) <= 4)
        assert sum(extra + len(p) * max(lengths[i] for i in p) for p in chosen) == cheapest


def test_no_more_is_heard_than_what_is_said_and_some_silence() -> None:
    ends_s = [29.0, 2.0, 5.0, 28.5, 3.0]
    steps = [passes.heard(ends_s, states=1500, seed=str(n), extra=0) for n in range(300)]
    assert steps == [passes.heard(ends_s, states=1500, seed=str(n), extra=0) for n in range(300)]
    whole = [lengths for lengths in steps if lengths == [1500] * 5]
    assert len(whole) == pytest.approx(300 * passes.WHOLE_SHARE, abs=20)
    silence_s = [length / 50 - end_s for lengths in steps if lengths not in whole
                 for length, end_s in zip(lengths, ends_s, strict=True) if end_s < 26]  # fmt: skip
    assert min(silence_s) >= passes.SILENCE_S[0]
    assert max(silence_s) <= passes.SILENCE_S[1] + 0.02
    # A pass of its own costs 50 positions: the three short windows share one, and the long ones theirs.
    for lengths in (passes.heard(ends_s, states=1500, seed=str(n), extra=50) for n in range(300)):
        assert len({lengths[1], lengths[2], lengths[4]}) == 1
        assert lengths[0] == lengths[3] or lengths == [1500] * 5
    assert passes.heard(ends_s, states=1500, seed="1", extra=10**6) == [1500] * 5
    lengths, labels = [500, 1500, 500, 500], [9, 9, 30, 10]
    assert passes.together(lengths, labels, at_most=9, states_at_most=9000, extra=10) == [[0, 3], [2], [1]]
    assert passes.together(lengths, labels, at_most=9, states_at_most=9000, extra=100) == [[0, 3, 2], [1]]
    # Three short windows are what a long one is; but memory may be too small for more than two.
    alike = {"labels": [9] * 5, "extra": 100}
    assert passes.together([500] * 5, **alike, at_most=9, states_at_most=1500) == [[0, 1], [2, 3, 4]]
    assert passes.together([1500] * 5, **alike, at_most=9, states_at_most=1500) == [[0], [1], [2], [3], [4]]
    assert max(map(len, passes.together([500] * 5, **alike, at_most=2, states_at_most=1500))) == 2


def test_training_hears_speech_whole_and_silence_in_part(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a clip of 2 s alone in its window, 3 to 6 s; the encoder, where it learns, hears whole windows."""
    heard: list[int] = []
    loss = training.objective.loss

    def noted(core, base, features: torch.Tensor, *given, **options):
        heard.append(features.shape[-2 if options["from_states"] else -1])
        return loss(core, base, features, *given, **options)

    monkeypatch.setattr(training.objective, "loss", noted)
    run(small, tmp_path / "decoder", dataclasses.replace(RECIPE, epochs=10))
    assert all(150 <= states <= 300 for states in heard if states != 1500)
    assert 0 < heard.count(1500) < len(heard) / 3
    heard.clear()
    run(small, tmp_path / "full", dataclasses.replace(RECIPE, strategy="full", epochs=1), **FROM_AUDIO)
    assert set(heard) == {3000}


def test_a_kill_while_dev_is_decoded_loses_no_step(small: load.Whisper, tmp_path: Path) -> None:
    whole = run(small, tmp_path / "whole")
    rates = iter([{"dev_wer": 1.0}])

    def killed() -> dict[str, float]:
        return next(rates)  # the second time there is none

    again = load.load(str(tmp_path / "base"))
    with pytest.raises(StopIteration):
        run(again, tmp_path / "killed", evaluate=killed)
    saved = torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)
    assert json.loads(saved["progress"])["step"] == 2
    heard: list[int] = []

    def counted(numbers) -> torch.Tensor:
        heard.append(len(numbers))
        return states(numbers)

    ended = run(load.load(str(tmp_path / "base")), tmp_path / "killed", inputs=counted)
    assert len(heard) == 2  # the second epoch's steps
    assert [row.get("loss") for row in ended.curve] == [row.get("loss") for row in whole.curve]


def test_dropout_repeats_after_a_kill(small: load.Whisper, tmp_path: Path) -> None:
    def with_dropout() -> load.Whisper:
        whisper = copied(small)
        whisper.model.config.dropout = 0.3
        for module in whisper.model.modules():
            if hasattr(module, "dropout"):
                module.dropout = 0.3
        return whisper

    whole = run(with_dropout(), tmp_path / "whole")
    stop = iter([{"dev_wer": 1.0}, {"dev_wer": 0.99}])
    with pytest.raises(StopIteration):
        run(with_dropout(), tmp_path / "killed", evaluate=lambda: next(stop))
    torch.rand(7)
    ended = run(with_dropout(), tmp_path / "killed")
    assert [row.get("loss") for row in ended.curve] == [row.get("loss") for row in whole.curve]
    assert whole.curve[1]["loss"] != run(copied(small), tmp_path / "none").curve[1]["loss"]


def test_a_checkpoint_that_finds_no_room_is_a_sentence(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written .*free some disk"):
        run(small, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.pt*"))


def test_a_clip_of_many_segments_is_one_clip_of_a_step(small: load.Whisper) -> None:
    part = tokens.Segment(tokens=(1,), start_s=0.0, end_s=1.0)
    eight = [Item(number=n, segments=(part,) * 8, view=0, replay=False, clips=1) for n in range(8)]
    assert [len(step) for step in epoch_steps(eight, dataclasses.replace(RECIPE, batch_clips=4), epoch=0)] == [4, 4]
    assert Item(number=0, segments=(part,) * 8, view=0, replay=False).clips == 8


def test_not_a_number_names_the_rows_that_gave_it(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_is_broken(numbers) -> torch.Tensor:
        heard = states(numbers)
        heard[[index for index, number in enumerate(numbers) if number == 3]] = float("nan")
        return heard

    monkeypatch.setattr(training.passes, "windows_at_once", lambda device, width, from_states: 1)
    monkeypatch.setattr(training.passes, "WHOLE_SHARE", 1.0)
    recipe = dataclasses.replace(RECIPE, batch_clips=4)
    with pytest.raises(InputError, match=r"step 0 \(rows clip-3; learning rate"):
        run(small, tmp_path / "out", recipe, inputs=one_is_broken, name_of="clip-{}".format)


def test_not_a_number_stops_with_step_rows_and_rate(small: load.Whisper, tmp_path: Path) -> None:
    broken = lambda numbers: torch.full((len(numbers), 1500, 64), float("nan"))  # noqa: E731
    before = {name: value.clone() for name, value in small.model.state_dict().items()}
    with pytest.raises(InputError, match=r"step 0 \(rows clip-\d, clip-\d; learning rate 1\.00e"):
        run(small, tmp_path / "out", inputs=broken, name_of="clip-{}".format)
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["model"]
    assert saved
    assert all(torch.equal(value, before[name]) for name, value in saved.items())


def test_tensorboard_gets_every_step_and_evaluation(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "out" / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            assert isinstance(value, float)
            written.append((name, step))

        def close(self) -> None:
            written.append(("closed", 0))

    installed = types.ModuleType("torch.utils.tensorboard")
    installed.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", installed)
    state = run(small, tmp_path / "out")
    assert [step for name, step in written if name == "loss"] == list(range(1, state.step + 1))
    assert [step for name, step in written if name == "dev_wer"] == [row["step"] for row in state.curve[1:]]
    assert written[-1] == ("closed", 0)


def test_the_best_evaluation_is_kept_and_patience_stops(small: load.Whisper, tmp_path: Path) -> None:
    rates = iter([0.9, 0.4, 0.6, 0.7, 0.8, 0.9])
    recipe = dataclasses.replace(RECIPE, epochs=8, patience=2)
    seen: list[dict[str, torch.Tensor]] = []

    def measure() -> dict[str, float]:
        seen.append({name: value.clone() for name, value in small.model.state_dict().items()})
        return {"dev_wer": next(rates)}

    state = run(small, tmp_path / "out", recipe, evaluate=measure)
    assert (state.best_epoch, state.epoch) == (1, 3)
    final = small.model.state_dict()
    assert all(torch.equal(value, seen[1][name]) for name, value in final.items())
    assert any(not torch.equal(value, seen[-1][name]) for name, value in final.items())
    assert {path.name for path in (tmp_path / "out").glob("*.pt")} == {"best.pt", "checkpoint.pt"}


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


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_CUDA])])
def test_blend_is_exact_at_the_ends_and_holds_what_moved_alone(device: str) -> None:
    model = torch.nn.ModuleDict({"moves": torch.nn.Linear(3, 3), "stays": torch.nn.Linear(3, 3)})
    base = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model.to(device)["moves"].weight.data.mul_(-1.7)
    tuned = retain.moved(model, base)
    assert tuned.keys() == {"moves.weight"}
    for alpha, expected in ((0.5, -0.35 * base["moves.weight"]), (0.0, base["moves.weight"])):
        retain.blend(model, base, tuned, alpha)
        torch.testing.assert_close(model["moves"].weight.cpu(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(model["moves"].weight.cpu(), base["moves.weight"])
    retain.blend(model, base, tuned, 1.0)
    assert torch.equal(model["moves"].weight.cpu(), tuned["moves.weight"])


@pytest.mark.gpu
@NEEDS_CUDA
def test_passes_recorded_as_graphs_learn_what_launched_ones_do(
    small: load.Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.passes, "SILENCE_S", (30.0, 30.0))  # graphs hear to a grid
    recipe = dataclasses.replace(RECIPE, epochs=6, batch_clips=4, replay_share=0.5, distil=0.5, l2sp=0.1)
    card = load.Device(name="cuda", precision=torch.float32, reason="tests")
    record, recorded, losses = training.graphs.Graphs._recorded, [], {True: list[float](), False: list[float]()}

    def noted(*given, **options):
        recorded.append(record(*given, **options))
        return recorded[-1]

    monkeypatch.setattr(training.graphs.Graphs, "_recorded", noted)
    for graphs, held in losses.items():
        if not graphs:
            monkeypatch.setattr(training.graphs, "are_possible", lambda *given, **options: False)
        whisper = load.load(str(tmp_path / "base"))
        train(
            whisper, items(whisper, TEXTS * 2) + items(whisper, ["eight nine", "ten"], replay=True), recipe,
            device=card, out=tmp_path / str(graphs), progress=lambda step, total, loss, held=held: held.append(loss),
            inputs=states, from_states=True, evaluate=lambda: {"dev_wer": 1.0},
        )  # fmt: skip
    assert 0 < len(recorded) < len(losses[True])
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert losses[True][-1] < losses[True][0]


def test_choice_is_best_dev_inside_the_budget() -> None:
    points = [
        retain.Point(alpha=1.0, dev_wer=0.10, general_wer=0.40),
        retain.Point(alpha=0.8, dev_wer=0.12, general_wer=0.33),
        retain.Point(alpha=0.6, dev_wer=0.20, general_wer=0.31),
    ]
    assert retain.choose(points, base_general_wer=0.30, budget=0.05) == (points[1], True)
    assert retain.choose(points, base_general_wer=0.30, budget=0.005) == (points[2], False)
    assert retain.choose(points, base_general_wer=None, budget=None) == (points[0], True)


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


def test_fewer_windows_go_at_once_the_wider_the_model_and_the_values() -> None:
    def at_once(width: int, precision: torch.dtype) -> int:
        device = load.Device(name="cpu", precision=precision, reason="a test")
        return passes.windows_at_once(device, width, from_states=True)

    assert at_once(384, torch.bfloat16) == 2 * at_once(384, torch.float32) == 10
    assert at_once(1280, torch.float32) == 1
    assert at_once(10_000, torch.float32) == 1


def test_where_the_card_is_full_features_stay_and_the_step_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    given = torch.zeros(1)
    assert passes.Upload(CPU).moved(given) is given
    upload = passes.Upload(CPU)
    upload._card, upload._stream = 0, types.SimpleNamespace()  # type: ignore[assignment]
    for name in ("device", "stream"):
        monkeypatch.setattr(torch.cuda, name, lambda _: contextlib.nullcontext())

    def pinned(error: Exception) -> types.SimpleNamespace:
        def pin_memory() -> None:
            raise error

        return types.SimpleNamespace(pin_memory=pin_memory)

    full = pinned(torch.OutOfMemoryError("no room"))
    assert upload.moved(full) is full  # type: ignore[arg-type, comparison-overlap]
    with pytest.raises(RuntimeError, match="a launch failed"):
        upload.moved(pinned(RuntimeError("a launch failed")))  # type: ignore[arg-type]
