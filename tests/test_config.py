"""Pipeline files: every fault at once, overrides by dotted name."""

import re
from pathlib import Path

import pytest

from speechft import config
from speechft.errors import InputError

PIPELINES = sorted((Path(__file__).parent.parent / "pipelines").glob("*.toml"))


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    path = tmp_path / "p.toml"
    path.write_text('[data]\ntrain = "a.jsonl"\ntest = ["b.csv"]\n[augment.noise]\np = 0.5\n')
    return path


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_shipped_pipelines_are_valid(path: Path) -> None:
    loaded = config.load(path)
    assert loaded.data.train or loaded.synth


@pytest.mark.parametrize("name", ["clean", "view1", "view", "../out", "a/b", "a#b", ".hidden", ""])
def test_conditions_have_names_that_ids_and_paths_can_hold(pipeline: Path, name: str) -> None:
    pipeline.write_text(f'{pipeline.read_text()}[conditions."{name}".telephone]\n')
    with pytest.raises(InputError, match=f"conditions: '{re.escape(name)}' cannot be a condition's name"):
        config.load(pipeline)
    pipeline.write_text(pipeline.read_text().replace(f'"{name}"', '"Übung-5.dB"'))
    assert list(config.load(pipeline).conditions) == ["Übung-5.dB"]


def test_a_single_manifest_is_a_list(pipeline: Path) -> None:
    assert config.load(pipeline).data.train == (Path("a.jsonl"),)


def test_overrides_are_toml_or_text(pipeline: Path) -> None:
    overrides = ["finetune.epochs=3", "model.base=openai/whisper-small", "encode.pack=false", "data.train=x.csv"]
    loaded = config.load(pipeline, overrides)
    assert (loaded.finetune.epochs, loaded.model.base, loaded.encode.pack) == (3, "openai/whisper-small", False)
    assert loaded.data.train == (Path("x.csv"),)


def test_all_faults_are_named_at_once(pipeline: Path) -> None:
    with pytest.raises(InputError) as caught:
        config.load(pipeline, ["finetune.epochs=0", "finetune.nope=1", "encode.gap_s=[3,1]", "augment.foo=3"])
    message = str(caught.value)
    for part in ("p.toml", "finetune.epochs", "got 0", "unknown setting finetune.nope", "encode.gap_s", "foo"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "message"),
    [("epochs=3", "write a table"), ("finetune.epochs", "write a table"), ("data.train.x=1", "train is not a table")],
)
def test_malformed_overrides(pipeline: Path, override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config.load(pipeline, [override])


def test_something_must_be_heard(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text("[data]\n")
    with pytest.raises(InputError, match=r"p\.toml: data\.train and data\.test missing: name manifests, or speak"):
        config.load(path)
    with pytest.raises(InputError, match=r"synth: nothing to say; name a term list"):
        config.load(path, ["synth.per_term=3"])
    assert config.load(path, ["synth.per_term=3", "data.terms=t.txt"]).data.test == ()


def test_missing_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("[data\n")
    with pytest.raises(InputError, match=r"bad\.toml: is not valid TOML"):
        config.load(tmp_path / "bad.toml")


def test_masks_are_refused_where_they_would_do_nothing() -> None:
    asked = ["finetune.strategy=prompt", "finetune.distil=0", "finetune.time_masks=2"]
    with pytest.raises(InputError, match="time_masks and channel_masks do nothing under prompt"):
        config.load("pipelines/demo.toml", asked)


def test_scratch_keeps_to_no_base_and_blends_with_none() -> None:
    asked = ["finetune.strategy=scratch", "finetune.distil=0"]
    assert config.load("pipelines/demo.toml", asked).finetune.blends == (1.0,)
    with pytest.raises(InputError, match="l2sp and distil keep to the base, of which scratch takes no weights"):
        config.load("pipelines/demo.toml", [*asked, "finetune.l2sp=0.1"])
