"""The report of a run: `collect` reads what the stages left, `write` makes report.json, report.md and report.html."""

from speechft.report.facts import collect
from speechft.report.page import write

__all__ = ["collect", "write"]
