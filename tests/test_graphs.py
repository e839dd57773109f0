"""Which passes are recorded, and what becomes of graphs; what a card does with them is tested where there is one."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from speechft.adapt import graphs
from speechft.whisper import load

CUDA = load.Device(name="cuda", precision=torch.bfloat16, reason="tests")
PLAIN = SimpleNamespace(dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, decoder_layerdrop=0.0)


class Recorder:
    """Stands for a card: what is recorded runs again on the tensors it was recorded with."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.ones(3))
        self.recorded: list[tuple[int, ...]] = []
        self.launched = 0
        self.fails = False

    def call(self, features: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        self.launched += 1
        loss = (features.sum(dim=0) * self.weight).sum() + sum(tensor.sum() for tensor in tensors)
        loss.backward()
        return loss.detach()

    def record(self, call: Callable[..., torch.Tensor], features: torch.Tensor, tensors, parameters) -> graphs._Graph:
        if self.fails:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        self.recorded.append(tuple(features.shape))
        places, value = tuple(tensor.clone() for tensor in tensors), torch.zeros(())

        def replay() -> None:
            value.copy_(call(features, *places))

        return graphs._Graph(graph=SimpleNamespace(replay=replay), tensors=places, value=value)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(graphs.Graphs, "_recorded", lambda self, *given: made.record(*given))
    return made


def run(held: graphs.Graphs, recorder: Recorder, rows: int, *, fill: float = 1.0, kind: int = 0) -> float:
    features, counts = torch.full((rows, 3), fill), torch.full((2,), fill)
    value = held.run(recorder.call, features, (counts,), kind=kind, parameters=[recorder.weight])
    return float(value)


def test_a_shape_is_recorded_when_it_comes_again(recorder: Recorder) -> None:
    held = graphs.Graphs(record=True)
    assert [run(held, recorder, 4, fill=fill) for fill in (1.0, 2.0, 3.0)] == [14.0, 28.0, 42.0]
    assert recorder.recorded == [(4, 3)]
    assert torch.equal(recorder.weight.grad, torch.full((3,), 4.0 + 8.0 + 12.0))
    run(held, recorder, 4, kind=1)  # of another kind
    assert recorder.recorded == [(4, 3)]


def test_a_larger_shape_moves_the_features_and_records_anew(recorder: Recorder) -> None:
    held = graphs.Graphs(record=True)
    for rows in (4, 4, 5, 5, 9, 9, 4):
        assert run(held, recorder, rows, fill=2.0) == 2.0 * (3 * rows + 2)
    assert recorder.recorded == [(4, 3), (5, 3), (9, 3), (4, 3)]  # 5 had room


def test_the_last_used_are_kept(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    held = graphs.Graphs(record=True)
    for rows in (9, 9, 3, 3, 9, 2, 2):
        run(held, recorder, rows)
    assert [key[1] for key in held.held] == [(9, 3), (2, 3)]
    held.clear()
    run(held, recorder, 9)
    assert not held.held


def test_what_cannot_be_recorded_is_launched_from_then_on(recorder: Recorder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    held, recorder.fails = graphs.Graphs(record=True), True
    assert [run(held, recorder, 4) for _ in range(3)] == [14.0] * 3
    assert not held.record
    assert recorder.launched == 3
    assert "kernel by kernel (operation not permitted when stream is capturing)" in caplog.text


def test_without_recording_nothing_is_kept(recorder: Recorder) -> None:
    held = graphs.Graphs(record=False)
    assert [run(held, recorder, 4) for _ in range(3)] == [14.0] * 3
    assert not recorder.recorded


@pytest.mark.parametrize(
    ("device", "config", "from_states", "possible"),
    [
        (CUDA, PLAIN, True, True),
        (CUDA, PLAIN, False, False),
        (CUDA, SimpleNamespace(**{**vars(PLAIN), "attention_dropout": 0.1}), True, False),
        (load.Device(name="cuda", precision=torch.float16, reason="scales its loss"), PLAIN, True, False),
        (load.Device(name="cpu", precision=torch.bfloat16, reason=""), PLAIN, True, False),
    ],
)
def test_only_what_draws_and_scales_nothing_is_recorded(device, config, from_states: bool, possible: bool) -> None:
    assert graphs.are_possible(device, config, from_states=from_states) == possible
