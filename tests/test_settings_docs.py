"""docs/settings.md has every setting of a pipeline with the default that the code has."""

import re
from pathlib import Path
from typing import Any

import pytest

from speechft import config

PAGE = (Path(__file__).parent.parent / "docs" / "settings.md").read_text(encoding="utf-8")
TABLES = {"model": config.Model, "data": config.Data, "encode": config.Encode, "finetune": config.Finetune,
          "decode": config.Decode, "score": config.Score}  # fmt: skip
TOLD_OTHERWISE = {None, ()}  # the page says in words what then happens


def documented(table: str) -> dict[str, str]:
    """What the page says is the default of each setting of a table."""
    section = re.search(rf"^## `\[{table}\]`.*?(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section
    found = {}
    for names, default in re.findall(r"^\| (`.*?) \| (.*?) \|", section[0], re.MULTILINE):
        found.update(dict.fromkeys(re.findall(r"`(\w+)`", names), default.strip("`")))
    return found


def written(value: Any) -> str:
    """A default as the page writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return (" to " if len(value) == 2 else ", ").join(map(str, value))
    return str(value)


@pytest.mark.parametrize("table", TABLES)
def test_every_setting_is_documented_with_its_default(table: str) -> None:
    fields = TABLES[table].model_fields
    masks = {name for name in fields if "mask" in name}  # in docs/augment.md
    told = documented(table)
    assert set(told) == set(fields) - masks
    for name, default in told.items():
        if fields[name].default not in TOLD_OTHERWISE:
            assert default == written(fields[name].default), name
        else:
            assert not re.fullmatch(r"[\d.]+", default) or name == "batch_clips", name
