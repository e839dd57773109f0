"""What a result was made with: versions, commit and memory, gathered in milliseconds and without torch."""

import contextlib
import importlib.metadata
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechft import __version__

PACKAGES = ("numpy", "soundfile", "torch", "torchaudio", "transformers", "peft", "accelerate", "ctranslate2")


def versions() -> dict[str, str]:
    """Versions of Python, this package and the libraries that shape results, read without importing them."""
    versions = {"speechft": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def what_changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Which settings differ between two stage records, else that something else does; "" without an earlier one."""
    if "settings" not in before:
        return ""
    one, two = (_leaves(record["settings"] | {"seed": record.get("seed")}) for record in (before, now))
    found = [
        f"{name} was {one.get(name)!r}, is {two.get(name)!r}" for name in one | two if one.get(name) != two.get(name)
    ]
    if found:
        return "; ".join(found[:3]) + ("; ..." if len(found) > 3 else "")
    return "what it reads has changed" if before.get("format") == now["format"] else "this version writes it otherwise"


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def git_commit() -> str | None:
    """The commit of the checkout this package runs from, or None when it is installed elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def forget_peak_memory() -> None:
    """Let `peak_memory_mb` begin anew, where the system can: on Linux."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """The most memory this process has held so far, or since `forget_peak_memory`, in megabytes."""
    # Linux's getrusage goes on from the process that started this one.
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)  # macOS counts bytes, Linux kilobytes
