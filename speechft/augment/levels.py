"""Levels: full scale, which nothing may pass, and that of speech which has none of its own."""

import numpy as np
from scipy.linalg.blas import isamax

PEAK_LIMIT = 0.99  # of full scale; what is louder is scaled down whole
SPEECH_DB = -26.0  # RMS of active speech, what ITU-T P.56 test material is set to


def peak(samples: np.ndarray) -> float:
    """The largest magnitude of samples, shape (samples,); 0 of none."""
    # BLAS takes half of the time of `max` and `min` together.
    return abs(float(samples[isamax(samples)])) if len(samples) else 0.0


def possible_gain(samples: np.ndarray, wanted: float) -> float:
    """The factor wanted for samples, shape (samples,), or what their peak allows below 0.99 of full scale."""
    highest = peak(samples)
    return min(wanted, PEAK_LIMIT / highest) if highest > 0.0 else wanted


def limited(samples: np.ndarray) -> np.ndarray:
    """Samples, shape (samples,), scaled down where their peak passes 0.99 of full scale."""
    gain = possible_gain(samples, 1.0)
    return samples if gain == 1.0 else samples * np.float32(gain)
