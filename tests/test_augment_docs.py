"""docs/augment.md names every transform, every setting, and the default chain as the code has them."""

import re
import tomllib
from pathlib import Path

import pytest

from speechft import config
from speechft.augment import checks, settings, sources

PAGE = (Path(__file__).parent.parent / "docs" / "augment.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", settings.Transforms.model_fields)
def test_every_transform_and_setting_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE or f"`[augment.{name}]`" in PAGE
    table = settings.Transforms.model_fields[name].annotation.__args__[0]  # type: ignore[union-attr]
    for key, field in table.model_fields.items():
        assert f"`{field.alias or key}`" in PAGE, key


def test_settings_of_the_pipeline_are_documented() -> None:
    masks = [name for name in config.Finetune.model_fields if "mask" in name]
    assert len(masks) == 4
    for name in (*config.Augment.model_fields, *config.Synth.model_fields, *masks):
        assert f"`{name}`" in PAGE, name


def test_the_default_chain_is_the_one_told() -> None:
    chain = re.search(r"## The default chain.*?What is not in it", PAGE, re.DOTALL)
    assert chain
    told = {name for name in settings.Transforms.model_fields if f"`{name}`" in chain[0]}
    assert told == set(settings.DEFAULT)
    checked = settings.check(settings.DEFAULT)
    for name in settings.DEFAULT:
        line = next(line for line in chain[0].splitlines() if f"`{name}`" in line)
        assert f" {getattr(checked, name).p:g} " in line, name


def test_the_conditions_to_copy_are_right_beside_the_default_chain() -> None:
    [block] = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    conditions = tomllib.loads(block)["conditions"]
    assert set(conditions) == {"babble0", "babble5", "babble10", "telephone", "room", "scottish", "hindi"}
    checks.check({}, conditions)


def test_rooms_are_as_many_as_told() -> None:
    assert f"| {sources.TRAINING_ROOMS} (conditions: {sources.CONDITION_ROOMS}) |" in PAGE
    assert sources.TRAINING_ROOMS == 200
