"""Random numbers that depend on a label alone, so that order, resumption and workers change nothing."""

import hashlib

import numpy as np

DECIMALS = 4  # drawn values are rounded before use: what the row records is what was done


def generator(label: str) -> np.random.Generator:
    """A generator seeded by the SHA-256 of a label such as "1:clip-7:2:noise"."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(label.encode()).digest()[:16], "big"))


def uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """A number from a range, rounded to four decimals."""
    return round(float(rng.uniform(*bounds)), DECIMALS)


def log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    """A ratio from a range, as likely below 1 as above where the range is symmetric in octaves."""
    low, high = np.log(bounds)
    return round(float(np.exp(rng.uniform(low, high))), DECIMALS)
