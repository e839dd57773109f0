"""Loading any Whisper: published shapes, stored precision, side files, and readable refusals."""

import hashlib
import json
import os
from collections import Counter
from pathlib import Path

import any_whisper
import numpy as np
import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode

from speechft import audio, config, files, manifest
from speechft.adapt import strategies
from speechft.errors import InputError
from speechft.run import Run
from speechft.whisper import decode, load, source, states, windows

CPU = load.Device(name="cpu", precision=torch.float32, reason="tests")
CLINICAL = Path(__file__).resolve().parent.parent / "manifests" / "clinical"


WHOLE_LARGE = pytest.mark.skipif(
    "SPEECHFT_WHOLE_LARGE" not in os.environ,
    reason="all of large-v3 takes two minutes and 14 GB: SPEECHFT_WHOLE_LARGE=1",
)


@pytest.mark.parametrize(
    ("name", "depth"),
    [("tiny", 4), ("tiny.en", 4), ("small", 12), ("large-v3", 2), pytest.param("large-v3", 32, marks=WHOLE_LARGE)],
)
def test_published_dimensions_train_save_reload_and_generate(tmp_path: Path, name: str, depth: int) -> None:
    d_model, layers, heads, mels, vocabulary = any_whisper.PUBLISHED[name]
    assert depth in (layers, 2)
    shape = {"d_model": d_model, "layers": depth, "heads": heads, "mels": mels}
    whisper = load.load(str(any_whisper.save(tmp_path / name, vocabulary, **shape)))
    assert whisper.multilingual == (not name.endswith(".en"))
    assert whisper.n_mels == mels
    _two_steps_then_reload(whisper, tmp_path)


def _hashes(whisper: load.Whisper) -> dict[str, str]:
    """Of each tensor: two copies of a large model are one too many."""
    return {name: hashlib.sha256(value.numpy()).hexdigest() for name, value in whisper.model.state_dict().items()}


def _two_steps_then_reload(whisper: load.Whisper, folder: Path) -> None:
    before = _hashes(whisper)
    strategies.freeze(whisper.model, "decoder")
    trained = [p for p in whisper.model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    clip = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    features = windows.log_mel(windows.pad_window(clip), n_mels=whisper.n_mels)[None]
    encoded = states.encode(whisper.model.model.encoder, features, CPU).clone()
    for _ in range(2):
        inputs = torch.tensor([[*whisper.ids.prompt, whisper.ids.no_timestamps, 5]])
        hidden = whisper.model.model.decoder(input_ids=inputs, encoder_hidden_states=encoded).last_hidden_state
        torch.nn.functional.cross_entropy(whisper.model.proj_out(hidden)[0], inputs[0]).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = _hashes(whisper)
    moved = {name for name in after if after[name] != before[name]}
    assert any(name.startswith("model.decoder.layers.0") for name in moved)
    assert not any(name.startswith("model.encoder") for name in moved)
    load.save(whisper, folder / "saved")
    again = load.load(str(folder / "saved"), language=whisper.language, task=whisper.task)
    ids = [decode.decode_ids(w, encoded, device=CPU, max_new_tokens=4) for w in (whisper, again)]
    assert ids[0] == ids[1]
    extractor = json.loads((folder / "saved" / "preprocessor_config.json").read_text())
    assert extractor["feature_size"] == whisper.n_mels


def test_half_precision_files_are_loaded_in_float32(tmp_path: Path) -> None:
    whisper = load.load(str(any_whisper.save(tmp_path / "base", 51864)))
    load.save(whisper, tmp_path / "half", half=True)
    again = load.load(str(tmp_path / "half"))
    assert {p.dtype for p in again.model.parameters()} == {torch.float32}
    size = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("base", "half")]
    assert size[1] < 0.6 * size[0]


def test_a_saved_model_remembers_its_language_and_task(tmp_path: Path) -> None:
    load.save(load.load(str(any_whisper.save(tmp_path / "base", 51865)), language="hi"), tmp_path / "model")
    again = load.load(str(tmp_path / "model"))
    assert (again.language, again.task) == ("hi", "transcribe")
    assert load.load(str(tmp_path / "model"), language="cy").language == "cy"
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "model").language == "hi"


@pytest.mark.parametrize(("asked", "named"), [({"language": "de"}, "language 'de'"), ({"task": "translate"}, "task")])
def test_an_english_only_model_is_asked_for_english_alone(asked: dict[str, str], named: str) -> None:
    assert load.load("nano", language="en", task="transcribe").ids.prompt == load.load("nano").ids.prompt
    with pytest.raises(InputError, match=f"nano is an English-only model, {named}"):
        load.load("nano", **asked)


def test_which_models_have_languages_where_they_do_not_say(tmp_path: Path) -> None:
    for vocabulary, expected in ((51864, False), (51865, True)):
        folder = any_whisper.save(tmp_path / str(vocabulary), vocabulary)
        (folder / "generation_config.json").unlink()
        assert source.is_multilingual(folder) is expected
    (folder / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="generation_config.json: is not valid JSON"):
        source.is_multilingual(folder)


@pytest.mark.parametrize("vocabulary", [51864, 51865])
def test_a_model_without_a_generation_config_decodes_as_with_one(tmp_path: Path, vocabulary: int) -> None:
    """As many of 2022 and 2023 have none, or an old one; what is saved has one, and transformers decodes by it."""
    folder = any_whisper.save(tmp_path / "base", vocabulary)
    encoded = torch.randn(2, 1500, load.load(str(folder)).model.config.d_model)
    expected = decode.decode_ids(load.load(str(folder)), encoded, device=CPU, max_new_tokens=8)
    for name in ("generation_config.json", "preprocessor_config.json"):
        (folder / name).unlink(missing_ok=True)
    bare = load.load(str(folder))
    assert decode.decode_ids(bare, encoded, device=CPU, max_new_tokens=8) == expected
    assert decode.decode_ids(bare, encoded, device=CPU, max_new_tokens=8, timestamps=True)
    load.save(bare, tmp_path / "saved")
    model = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "saved")
    silence = torch.zeros(1, bare.n_mels, 3000)
    options = {"language": "en", "task": "transcribe"} if bare.multilingual else {}
    assert model.generate(silence, max_new_tokens=4, **options).shape[0] == 1


@pytest.mark.parametrize("trains", [True, False])
def test_decoding_casts_each_weight_once_and_leaves_what_trains_alone(trains: bool) -> None:
    whisper = load.load("nano")
    whisper.model.requires_grad_(trains)
    device = load.Device(name="cpu", precision=torch.bfloat16, reason="test")
    encoded = torch.randn(1, 1500, whisper.model.config.d_model)
    cast: Counter[int] = Counter()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") == torch.bfloat16:
                cast[args[0].data_ptr()] += 1
            return func(*args, **(kwargs or {}))

    with Watch():
        decode.decode_ids(whisper, encoded, device=device, max_new_tokens=6)
    weights = {p.data_ptr() for p in whisper.model.model.decoder.parameters() if p.dim() == 2}
    assert {cast[place] for place in weights} <= {0, 1}
    assert sum(cast[place] for place in weights) > 20
    assert {p.requires_grad for p in whisper.model.parameters()} == {trains}


def test_nano_is_a_genuine_small_english_whisper() -> None:
    whisper = load.load("nano")
    assert isinstance(whisper.model, transformers.WhisperForConditionalGeneration)
    assert not whisper.multilingual
    assert whisper.model.config.max_source_positions == 1500
    assert sum(path.stat().st_size for path in source.NANO.iterdir()) <= 15_000_000
    text = decode.from_audio(whisper, [np.zeros(16000, np.float32)], device=CPU)
    assert isinstance(text[0], str)


def test_timestamps_are_written_in_one_pass_over_kept_states() -> None:
    """Three windows whose last timestamps differ: nothing is decoded again behind them."""
    whisper = load.load("nano")
    rows = manifest.read(CLINICAL / "test.jsonl")[:4]
    clips = [audio.read(row.audio_filepath or "") for row in rows]
    joined = [clips[0], np.concatenate([clips[1], np.zeros(8000, np.float32), clips[2]]), clips[3]]
    features = torch.stack([windows.log_mel(windows.pad_window(clip)) for clip in joined])
    encoded = states.encode(whisper.model.model.encoder, features, CPU)
    first = whisper.ids.first_timestamp
    for row in decode.decode_ids(whisper, encoded, device=CPU, timestamps=True):
        stamps = [token for token in row if token >= first]
        assert row[0] == stamps[0]
        assert stamps == sorted(stamps)
        assert len(stamps) % 2 == 0
    texts = decode.decode(whisper, encoded, device=CPU, timestamps=True)
    assert all(len(text.split()) >= 3 for text in texts)
    assert not any("<|" in text for text in texts)


def test_transformers_own_pipeline_loads_nano() -> None:
    recognise = transformers.pipeline("automatic-speech-recognition", str(source.NANO))
    answer = recognise({"raw": np.zeros(16000, np.float32), "sampling_rate": 16000})
    assert set(answer) == {"text"}


def test_device_states_its_reason() -> None:
    device = load.choose_device()
    assert device.name in ("cpu", "cuda")
    assert device.reason in device.label


@pytest.mark.parametrize("base", ["./nowhere", "nowhere", "/no/such/model"])
def test_a_missing_directory(base: str) -> None:
    with pytest.raises(InputError, match="no such directory"):
        load.load(base)


def test_an_unreachable_hub_names_the_id_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub

    def unreachable(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match=r"openai/whisper-tiny.*model\.base=nano.*local directory"):
        load.load("openai/whisper-tiny")


def test_the_hubs_revision_is_recorded_and_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a pinned revision, the one whose states were kept is the one that is adapted."""
    import huggingface_hub

    snapshot = any_whisper.save(tmp_path / "0123abc", 51865)
    asked: list[str | None] = []

    def download(base: str, *, revision: str | None, **_: object) -> str:
        asked.append(revision)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    pipeline = config.load(CLINICAL.parent.parent / "pipelines" / "demo.toml", ["model.base=me/mine"])
    run = Run(pipeline, tmp_path / "run")
    assert run.load_base().revision == "0123abc"
    files.write_json(run.dir / "encode" / files.STAGE_FILE, {"revision": "0123abc"})
    run.load_base()
    assert asked == [None, "0123abc"]


def test_weights_from_before_safetensors_are_fetched_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[bool] = []

    def download(base: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.append("pytorch_model*.bin" in allow_patterns)
        for name in ("config.json", "vocab.json", *(["pytorch_model.bin"] if asked[-1] else [])):
            (tmp_path / name).write_text('{"model_type": "whisper"}')
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert source.find("me/mine")[0] == tmp_path
    assert asked == [False, True]


def test_a_models_card_is_no_input_of_a_run(tmp_path: Path) -> None:
    base = any_whisper.save(tmp_path / "base", 51865)
    (base / "README.md").write_text("about it")
    run = Run(config.load(CLINICAL.parent.parent / "pipelines" / "demo.toml", [f"model.base={base}"]), tmp_path / "run")
    assert {path.name for path in base.iterdir()} - {path.name for path in run.base_files} == {"README.md"}


def test_directories_that_are_not_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        load.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(InputError, match="no weights"):
        load.load(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(InputError, match="no tokenizer"):
        load.load(str(tmp_path))
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(InputError, match="damaged|cannot be loaded"):
        load.load(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="'bert' model"):
        load.load(str(tmp_path))


def test_positions_of_an_encoder_lie_together_and_say_the_same(tmp_path: Path) -> None:
    path = any_whisper.save(tmp_path / "base", 51865)
    ours = load.load(str(path)).model.model.encoder
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(path).model.encoder.eval()
    features = torch.randn(1, ours.config.num_mel_bins, 3000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(ours(features).last_hidden_state, theirs(features).last_hidden_state)
        assert ours.conv2(ours.conv1(features)).transpose(1, 2).is_contiguous()
        assert not theirs.conv2(theirs.conv1(features)).transpose(1, 2).is_contiguous()
