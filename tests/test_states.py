"""Kept states: equal to the encoder's own, resumable, and damage is found."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import any_whisper
import numpy as np
import pytest
import torch
from test_pipeline import PROJECT, write_pipeline

from speechft import config, files, stages
from speechft.errors import InputError
from speechft.run import Run
from speechft.whisper import attention, load, shards, states, windows

CPU = load.Device(name="cpu", precision=torch.float32, reason="tests")


def an_encoder() -> torch.nn.Module:
    return any_whisper.model(51864, d_model=16, layers=1).model.encoder.eval()


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return an_encoder()


def render(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(8000).astype(np.float32) * 0.1


def keep(path: Path, encoder, *, count: int = 3, rendered: list[int] | None = None) -> states.Store:
    def note(number: int) -> np.ndarray:
        if rendered is not None:
            rendered.append(number)
        return render(number)

    return states.keep(path, count=count, render=note, encoder=encoder, n_mels=80, device=CPU, dtype="float16")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_WINDOWS", 2)


def test_states_are_the_encoders_own(tmp_path: Path, encoder) -> None:
    store = keep(tmp_path / "s", encoder)
    features = torch.stack([windows.log_mel(windows.pad_window(render(n))) for n in (2, 0)])
    with torch.inference_mode():
        own = encoder(features).last_hidden_state
    assert store.read([2, 0]).dtype == torch.float16
    torch.testing.assert_close(store.read([2, 0]).float(), own, atol=5e-3, rtol=1e-3)


def test_a_second_call_encodes_nothing(tmp_path: Path, encoder) -> None:
    keep(tmp_path / "s", encoder)
    rendered: list[int] = []
    keep(tmp_path / "s", encoder, rendered=rendered)
    assert rendered == []


def test_a_killed_shard_is_redone_and_only_that(tmp_path: Path, encoder) -> None:
    keep(tmp_path / "s", encoder)
    (tmp_path / "s" / "shard-00001.json").unlink()  # the record is written last
    rendered: list[int] = []
    keep(tmp_path / "s", encoder, rendered=rendered)
    assert rendered == [2]


def test_a_damaged_shard_is_found_and_redone(tmp_path: Path, encoder) -> None:
    keep(tmp_path / "s", encoder)
    path = tmp_path / "s" / "shard-00000.npy"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 255]))
    rendered: list[int] = []
    keep(tmp_path / "s", encoder, rendered=rendered)
    assert sorted(rendered) == [0, 1]
    assert path.read_bytes() == good


def test_cores_encode_side_by_side_and_leave_pytorch_its_threads(tmp_path: Path, encoder) -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        many = keep(tmp_path / "many", encoder, count=5)
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as pool:  # where a thread to come would find one, training would use one
            assert pool.submit(torch.get_num_threads).result() == 3
        torch.set_num_threads(1)
        one = keep(tmp_path / "one", encoder, count=5)
        assert torch.equal(many.read(range(5)), one.read(range(5)))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(("threads", "shared_out"), [(1, (1, 1)), (2, (2, 1)), (8, (8, 1)), (12, (6, 2)), (20, (6, 3))])
def test_no_core_is_left_out(threads: int, shared_out: tuple[int, int]) -> None:
    assert states.side_by_side(threads) == shared_out


def test_threads_attend_alike_to_the_end(tmp_path: Path, encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that is done must not choose another attention for those that are not."""
    monkeypatch.setattr(load, "processor_has", lambda flag: False)
    calls: list[int] = []
    attend = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *args, **more: calls.append(1) or attend(*args, **more))
    bf16 = load.Device(name="cpu", precision=torch.bfloat16, reason="tests")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        states.keep(tmp_path / "s", count=9, render=render, encoder=encoder, n_mels=80, device=bf16, dtype="float16")
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == 9 * len(encoder.layers)
    assert encoder.config._attn_implementation != attention.NAME


def test_a_window_that_cannot_be_read_stops_the_others(tmp_path: Path, encoder, monkeypatch) -> None:
    monkeypatch.setattr(shards, "SHARD_WINDOWS", 64)
    rendered: list[int] = []

    def fail(number: int) -> np.ndarray:
        rendered.append(number)
        raise InputError("w.wav: gone")

    with pytest.raises(InputError, match=r"w\.wav: gone"):
        states.keep(tmp_path / "s", count=64, render=fail, encoder=encoder, n_mels=80, device=CPU, dtype="float16")
    assert len(rendered) < 64
    assert not list((tmp_path / "s").glob("*shard*"))


def test_no_more_is_asked_for_than_is_held(tmp_path: Path) -> None:
    asked: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        results = states._ahead(pool, lambda n: asked.append(n) or -n, range(100), 5)
        taken = [next(results) for _ in range(10)]
        results.close()
    assert taken == [-n for n in range(10)]
    assert 10 <= len(asked) <= 16


def test_a_record_holds_the_checksum_of_the_file(tmp_path: Path, encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SYNCED_BYTES", 1)
    for dtype in ("float16", "bfloat16"):
        where = tmp_path / dtype
        states.keep(where, count=3, render=render, encoder=encoder, n_mels=80, device=CPU, dtype=dtype)
        paths = sorted(where.glob("shard-*.npy"))
        assert len(paths) == 2
        for path in paths:
            assert files.read_json(path.with_suffix(".json"))["sha256"] == files.sha256(path)
            held = np.load(path)
            again = io.BytesIO()
            np.save(again, held)
            assert again.getvalue() == path.read_bytes()


def test_attention_that_is_compiled_for_each_shape_is_for_encoding_only() -> None:
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with attention.of_many_shapes():
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        with attention.of_many_shapes():
            pass
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled()


def test_each_shard_is_recorded_before_the_next_ends(tmp_path: Path, encoder) -> None:
    """So what a kill loses is one shard; what is whole is told in order and not encoded again."""

    def fail_late(number: int) -> np.ndarray:
        if number == 5:
            raise InputError("w.wav: gone")
        return render(number)

    options = {"encoder": encoder, "n_mels": 80, "device": CPU, "dtype": "float16"}
    with pytest.raises(InputError, match=r"w\.wav: gone"):
        states.keep(tmp_path / "s", count=7, render=fail_late, **options)
    assert [path.name for path in sorted((tmp_path / "s").glob("*.json"))] == ["shard-00000.json", "shard-00001.json"]
    (tmp_path / "s" / "shard-00000.json").unlink()
    rendered, told = list[int](), list[int]()
    states.keep(
        tmp_path / "s", count=7, render=lambda n: (rendered.append(n), render(n))[1], progress=told.append, **options
    )  # fmt: skip
    assert sorted(rendered) == [0, 1, 4, 5, 6]
    assert told == [1, 2, 4, 5, 6, 7]


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from speechft.whisper import shards, states
from test_states import CPU, an_encoder, render
shards.SHARD_WINDOWS = 4
torch.set_num_threads(1)
folder = Path(sys.argv[1])
def read(number):
    if number == 6:  # of the second shard
        while not (folder / "shard-00000.json").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return render(number)
states.keep(folder, count=12, render=read, encoder=an_encoder(), n_mels=80, device=CPU, dtype="float16")
"""


def test_a_kill_inside_a_shard_loses_that_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was encoded ahead of the disk."""
    monkeypatch.setattr(shards, "SHARD_WINDOWS", 4)
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}{os.pathsep}{PROJECT}"}
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "s")], env=environment, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    rendered: list[int] = []
    store = keep(tmp_path / "s", an_encoder(), count=12, rendered=rendered)
    assert sorted(rendered) == list(range(4, 12))
    whole = keep(tmp_path / "whole", an_encoder(), count=12)
    assert torch.equal(store.read(range(12)), whole.read(range(12)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_keeps_what_the_processor_keeps(tmp_path: Path, encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD_WINDOWS", 5)
    monkeypatch.setattr(states, "BATCH", 2)
    kept = {}
    for name in ("cpu", "cuda"):
        device = load.Device(name=name, precision=torch.float32, reason="tests")
        store = states.keep(
            tmp_path / name, count=12, render=render, encoder=encoder, n_mels=80, device=device, dtype="float16",
            end=lambda number: 100 * (number + 1),
        )  # fmt: skip
        kept[name] = store.read(range(12)).float()
    encoder.to("cpu")
    assert torch.allclose(kept["cpu"], kept["cuda"], atol=2e-2)


def test_what_a_gpu_has_no_room_for_is_encoded_in_halves(encoder) -> None:
    sizes: list[int] = []

    def small_card(features: torch.Tensor):
        sizes.append(len(features))
        if len(features) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encoder(features)

    features = torch.stack([windows.log_mel(windows.pad_window(render(n))) for n in range(5)])
    found = states.encode(small_card, features, CPU)
    torch.testing.assert_close(found, states.encode(encoder, features, CPU), atol=1e-5, rtol=1e-5)
    assert sizes == [5, 3, 2, 1, 2]

    def full_card(features: torch.Tensor):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        states.encode(full_card, features, CPU)


def test_key_depends_on_everything() -> None:
    keys = {
        states.key(encoder, plan, dtype=dtype, precision=precision)
        for encoder in ("a", "b")
        for plan in ([1], [2])
        for dtype in ("float16", "bfloat16")
        for precision in ("torch.float32", "torch.bfloat16")
    }
    assert len(keys) == 16


def test_too_little_disk_is_an_error_before_the_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(config.load(write_pipeline(tmp_path)), tmp_path / "runs" / "small")
    stages.run_stages(run, ("ingest", "augment"))
    monkeypatch.setattr(states.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e6))
    with pytest.raises(InputError, match=r"the encoder states need 0\.\d+ GB and .* has 0\.00 GB free"):
        stages.run_stages(run, ("encode",))
    assert not list(tmp_path.rglob("shard-*"))


def test_the_size_is_told_before_the_first_byte_and_a_damaged_store_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = any_whisper.save(tmp_path / "base", 51864, d_model=16, layers=1)
    run = Run(config.load(write_pipeline(tmp_path), [f"model.base={base}"]), tmp_path / "runs" / "small")
    stages.run_stages(run, ("ingest", "augment"))
    caplog.set_level("INFO")
    told: list[bool] = []
    kept = states.keep
    monkeypatch.setattr(states, "keep", lambda *a, **k: (told.append("GB of states" in caplog.text), kept(*a, **k))[1])
    stages.run_stages(run, ("encode",))
    assert told[0]
    shard = min((tmp_path / "runs" / "states").rglob("shard-*.npy"))
    whole = shard.read_bytes()
    stages.run_stages(run, ("encode",))
    count = len(told)
    shard.write_bytes(whole[:-100] + bytes(100))
    stages.run_stages(run, ("encode",))
    assert len(told) == 2 * count  # the second call had nothing to do
    assert shard.read_bytes() == whole


def test_a_stage_that_is_done_notices_damage(tmp_path: Path, encoder) -> None:
    keep(tmp_path / "s", encoder)
    assert shards.all_whole(tmp_path / "s", 3)
    path = tmp_path / "s" / "shard-00001.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert not shards.all_whole(tmp_path / "s", 3)
    path.unlink()
    assert not shards.all_whole(tmp_path / "s", 3)
    for damage in ("", "{}", "[]"):
        keep(tmp_path / "s", encoder)
        path.with_suffix(".json").write_text(damage)
        assert not shards.all_whole(tmp_path / "s", 3)
    assert not shards.all_whole(tmp_path / "none", 3)


def test_a_shard_gone_while_training_is_one_sentence(tmp_path: Path, encoder) -> None:
    store = keep(tmp_path / "s", encoder)
    (tmp_path / "s" / "shard-00001.npy").unlink()
    with pytest.raises(InputError, match=r"shard-00001\.npy: kept states cannot be read"):
        store.read([2])


def test_what_a_killed_attempt_was_writing_is_removed(tmp_path: Path, encoder) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / f".shard-00000.npy.1.ab{files.TEMP_SUFFIX}").write_bytes(b"half")
    keep(tmp_path / "s", encoder)
    assert not list((tmp_path / "s").glob(f".*{files.TEMP_SUFFIX}"))


def test_two_runs_that_need_the_same_states_encode_them_once(
    tmp_path: Path, encoder, caplog: pytest.LogCaptureFixture
) -> None:
    """The second waits: it would remove what the first is writing, and do all of its work again."""
    begun, go_on, rendered = threading.Event(), threading.Event(), list[int]()

    def slow(number: int) -> np.ndarray:
        begun.set()
        assert go_on.wait(60)
        return render(number)

    def go_on_when_waited_for() -> None:
        give_up = time.monotonic() + 30
        while "waiting for it" not in caplog.text and time.monotonic() < give_up:
            time.sleep(0.01)
        go_on.set()

    caplog.set_level("INFO")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(
            states.keep, tmp_path / "s", count=3, render=slow, encoder=encoder, n_mels=80, device=CPU, dtype="float16"
        )
        assert begun.wait(60)
        pool.submit(go_on_when_waited_for)
        keep(tmp_path / "s", encoder, rendered=rendered)
        first.result()
    assert "waiting for it" in caplog.text
    assert rendered == []


def test_bfloat16_round_trip(tmp_path: Path, encoder) -> None:
    store = states.keep(
        tmp_path / "b", count=1, render=render, encoder=encoder, n_mels=80, device=CPU, dtype="bfloat16"
    )
    assert store.read([0]).dtype == torch.bfloat16
    with torch.inference_mode():
        own = encoder(windows.log_mel(windows.pad_window(render(0)))[None]).last_hidden_state
    torch.testing.assert_close(store.read([0]).float(), own, atol=4e-2, rtol=8e-3)


def test_states_are_mapped_not_read_whole(tmp_path: Path, encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    store = keep(tmp_path / "s", encoder)
    loaded, load_array = list[object](), np.load

    def noted(*args, **kwargs):
        loaded.append(load_array(*args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(states.np, "load", noted)
    store.read([0, 2])
    assert [type(array) for array in loaded] == [np.memmap, np.memmap]


def test_attention_in_blocks_is_attention() -> None:
    generator = torch.Generator().manual_seed(3)
    query, key, value = (torch.randn(2, 3, 700, 16, generator=generator) for _ in range(3))
    attended, _ = attention.attend(None, query, key, value, None, scaling=0.25)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, scale=0.25).transpose(1, 2)
    assert torch.allclose(attended, expected, atol=1e-5)


@pytest.mark.parametrize("amx", [False, True])
def test_states_in_bfloat16_on_processors_with_and_without_amx(monkeypatch: pytest.MonkeyPatch, amx: bool) -> None:
    monkeypatch.setattr(load, "processor_has", lambda flag: amx)
    whisper = load.load("nano")
    encoder = whisper.model.model.encoder
    noise = np.random.default_rng(1).normal(0, 0.1, 80_000).astype(np.float32)
    features = windows.log_mel(windows.pad_window(noise))[None]
    device = load.Device(name="cpu", precision=torch.bfloat16, reason="")
    with torch.inference_mode():
        exact = encoder(features).last_hidden_state
        with device.autocast():
            usual = encoder(features).last_hidden_state.float()
    ours = states.encode(encoder, features, device).float()
    assert torch.equal(ours, usual) == amx  # in blocks only where PyTorch's kernel is slow
    assert (ours - exact).norm() < 1.25 * (usual - exact).norm()
    assert encoder.config._attn_implementation != attention.NAME


@pytest.mark.parametrize("plan", [[], [[["a.wav", 1, 0.5]]], [[["a.wav", 1]], [["b.wav", {"z": 1, "a": 2}]]]])
def test_a_key_is_of_everything_as_one_json_text(plan: list) -> None:
    """So states that were kept before windows were hashed one by one are found."""
    whole = json.dumps([states.FORMAT, "hash", "float16", "torch.bfloat16", plan], sort_keys=True)
    key = states.key("hash", iter(plan), dtype="float16", precision="torch.bfloat16")
    assert key == hashlib.sha256(whole.encode()).hexdigest()[:20]
