"""report.json, report.md and report.html, written whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from speechft import files
from speechft.report import charts, lines, markdown
from speechft.report.pipeline_text import to_toml
from speechft.score.tables import uncounted

NOT_IN_JSON = ("examples",)  # the transcripts' own files hold them


def write(content: Mapping[str, Any], run_dir: Path) -> list[Path]:
    """Write what `collect` gathered into the run's root; everything is rendered before anything is written.

    Raises:
        InputError: the folder cannot be written to.
    """
    run_dir = Path(run_dir)
    kept = {key: value for key, value in content.items() if key not in NOT_IN_JSON}
    texts = {
        "report.json": json.dumps(kept, ensure_ascii=False, indent=2) + "\n",
        "report.md": markdown.render(content),
        "report.html": render(content),
    }
    for name, text in texts.items():
        with files.atomic_write(run_dir / name) as file:
            file.write(text)
    return [run_dir / name for name in texts]


def render(content: Mapping[str, Any]) -> str:
    """Return the page: one file without any link to the network, legible in light and dark."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("speechft.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(charts=charts, lines=lines, uncounted=uncounted)
    environment.filters.update(duration=lines.duration, whole=keep_whole)
    template = environment.get_template("report.html")
    return template.render(c=content, toml=to_toml(content["settings"]))


def keep_whole(text: str) -> str:
    """Keep numbers and their units on one line."""
    return re.sub(r"(?<=\d) (?=%|points\b|minutes\b)", "\u00a0", text)
