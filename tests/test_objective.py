"""What a pass asks of the decoder: the same, however it is filled up."""

import copy
from pathlib import Path

import any_whisper
import pytest
import torch

from speechft.adapt import objective
from speechft.whisper import load, tokens

CPU = load.Device(name="cpu", precision=torch.float32, reason="tests repeat exactly")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> load.Whisper:
    return load.load(str(any_whisper.save(Path(tmp_path_factory.mktemp("base")) / "base", 51865)))


def examples_of(whisper: load.Whisper, texts: list[str]) -> list[tokens.Example]:
    segments = [
        tokens.Segment(tokens=tokens.encode_text(whisper.tokenizer, text), start_s=0.0, end_s=2.0) for text in texts
    ]
    return [tokens.example(whisper.ids, [segment], timestamps=False) for segment in segments]


@pytest.mark.parametrize("distil", [0.0, 0.7])
def test_filling_up_to_few_sizes_changes_neither_loss_nor_gradients(small: load.Whisper, distil: float) -> None:
    core = copy.deepcopy(small.model).requires_grad_(True)
    base = copy.deepcopy(small.model.model).requires_grad_(False)
    base.encoder = None  # as where states are kept
    with torch.no_grad():
        for parameter in core.model.decoder.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    examples = examples_of(small, ["four five six", "one two three four five six seven", "ten"])
    states = torch.randn(3, 1500, core.config.d_model, generator=torch.Generator().manual_seed(2))
    divisors = objective.count_labels(examples, [True, False, False])
    found = []
    for most_tokens in (None, core.config.max_target_positions):
        given = objective.make_pass(
            examples, replayed=1, end=small.ids.end, divisors=divisors, distil=distil, most_tokens=most_tokens
        )
        core.zero_grad()
        loss = objective.loss(core, base, states, given, from_states=True, device=CPU)
        loss.backward()
        found.append((loss.detach(), core.model.decoder.layers[0].fc1.weight.grad, core.proj_out.weight.grad))
    assert given.inputs.shape == (3, 64)
    assert {len(tensor) % 64 for tensor in given.tensors[1:]} == {0}
    assert len(given.taught) == (64 if distil else 0)
    for exact, filled in zip(*found, strict=True):
        torch.testing.assert_close(filled, exact, rtol=1e-4, atol=1e-6)


def test_sizes_are_few_and_never_over_what_the_model_has(small: load.Whisper) -> None:
    assert [objective.few_sizes(count) for count in (0, 1, 64, 65, 300, 448, 513, 1100)] == [
        0, 64, 64, 128, 320, 448, 640, 1280,
    ]  # fmt: skip
    long = examples_of(small, ["one two three four five six seven " * 9])
    given = objective.make_pass(long, replayed=0, end=small.ids.end, divisors=(1, 1), distil=0.0, most_tokens=70)
    assert given.inputs.shape[1] == max(70, len(long[0].labels))


def test_what_is_learned_is_counted() -> None:
    some = tokens.Example(decoder_input_ids=(1, 2, 3), labels=(tokens.IGNORED, 7, 8))
    assert objective.count_labels([some, some], [True, False]) == (4, 2)
    assert objective.count_labels([some], [False]) == (2, 1)
