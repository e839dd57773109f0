"""Text to speech: eSpeak NG (in process), flite or any command that writes a WAV, as 16 kHz mono float32.

Synthetic speech is not human speech. Rows made with it carry `synthetic: true`, and every report says so.
"""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import functools
import io
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from speechft.audio import SAMPLE_RATE
from speechft.errors import InputError

ESPEAK_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS of speak_lib.h: synthesis runs in the calling thread
ESPEAK_UTF8 = 1  # espeakCHARS_UTF8
ESPEAK_PHONEMES = 0x100  # espeakPHONEMES: what stands in [[ ]] is phoneme names
ESPEAK_SEED = 1  # of its breath noise; that of its Klatt voices (Reed, caleb) comes from the C library's rand()
ESPEAK_RATE, ESPEAK_PITCH, ESPEAK_RANGE, ESPEAK_WORDGAP = 1, 3, 4, 7  # espeak_PARAMETER
COMMAND_TIMEOUT_S = 60.0
MARKS = "',%=|:;-!"  # of stress, length and pauses
MISSING_ESPEAK = "speaking text needs eSpeak NG, which is not installed: pip install 'speechft[voices]'"


@dataclass(frozen=True, kw_only=True)
class Voice:
    """One speaker: an engine's voice and how it is held.

    Attributes:
        engine: "espeak", "flite" or "command".
        name: eSpeak voice or language (`en-us`), flite voice (`slt`), or a command line holding `{text}` and
            `{wav}` (or reading the text on its standard input).
        variant: eSpeak variant (`f3`, `klatt2`), else empty.
        rate: speaking rate, 1.0 = the engine's own (eSpeak: 175 words a minute).
        pitch: eSpeak 0-99 (50 is the voice's own).
        pitch_range: eSpeak 0-99 (50 is the voice's own).
        word_gap: eSpeak pause between words, in units of 10 ms.
    """

    engine: str = "espeak"
    name: str = "en-us"
    variant: str = ""
    rate: float = 1.0
    pitch: int = 50
    pitch_range: int = 50
    word_gap: int = 0

    @property
    def speaker(self) -> str:
        """The speaker label of rows spoken by this voice: the timbre, whatever the rate and pitch."""
        name = Path(self.name.split()[0]).name if self.engine == "command" and self.name.split() else self.name
        return "-".join(part for part in (self.engine, name, self.variant) if part)


class _Espeak:
    """The eSpeak NG library, which keeps global state: one instance at a time in a process (see `_espeak`)."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise InputError(MISSING_ESPEAK) from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = str(Path(espeakng_loader.get_data_path()).parent).encode()
        rate = self._library.espeak_Initialize(ESPEAK_SYNCHRONOUS, 0, data, 0)
        if rate <= 0:  # some builds want the data folder itself
            rate = self._library.espeak_Initialize(ESPEAK_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), 0)
        if rate <= 0:
            raise InputError("eSpeak NG could not be started: reinstall the package espeakng-loader")
        self.sample_rate: int = rate
        self._chunks: list[bytes] = []
        callback_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def keep(samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int) -> int:
            if samples and count > 0:
                self._chunks.append(ctypes.string_at(samples, count * 2))
            return 0

        self._callback = callback_type(keep)  # a reference: ctypes would let it be collected
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(ESPEAK_SEED))
        (ctypes.CDLL(None) if os.name == "posix" else ctypes.cdll.msvcrt).srand(ESPEAK_SEED)  # type: ignore[attr-defined]
        self._voice = ""

    def close(self) -> None:
        """Unload the library, so that loading it again starts from nothing."""
        self._library.espeak_Terminate()
        unload = getattr(_ctypes, "dlclose", None) or _ctypes.FreeLibrary  # type: ignore[attr-defined]
        unload(self._library._handle)

    def set_voice(self, name: str) -> None:
        if name != self._voice:
            if self._library.espeak_SetVoiceByName(name.encode()) != 0:
                raise InputError(f"eSpeak NG has no voice {name!r}: `espeak-ng --voices` lists them")
            self._voice = name

    def speak(self, text: str, voice: Voice) -> np.ndarray:
        self.set_voice(f"{voice.name}+{voice.variant}" if voice.variant else voice.name)
        set_parameter = self._library.espeak_SetParameter
        set_parameter(ESPEAK_RATE, round(175 * voice.rate), 0)
        set_parameter(ESPEAK_PITCH, voice.pitch, 0)
        set_parameter(ESPEAK_RANGE, voice.pitch_range, 0)
        set_parameter(ESPEAK_WORDGAP, voice.word_gap, 0)
        self._chunks.clear()
        data = text.encode()
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, ESPEAK_UTF8 | ESPEAK_PHONEMES, None, None)
        self._library.espeak_Synchronize()
        return np.frombuffer(b"".join(self._chunks), dtype=np.int16).astype(np.float32) / 32768.0

    def phonemes(self, text: str, language: str) -> str:
        self.set_voice(language)
        pointer = ctypes.c_char_p(text.encode())
        parts = []
        while pointer.value:
            # mode 0: eSpeak's ASCII names, separated by "_" (bits 8-23 hold the separator)
            parts.append(self._library.espeak_TextToPhonemes(ctypes.byref(pointer), ESPEAK_UTF8, ord("_") << 8))
        return " ".join(part.decode() for part in parts if part)


_loaded: list[_Espeak] = []  # the one instance, if any


def _espeak(*, fresh: bool = False) -> _Espeak:
    """The library; `fresh` loads it anew (3 ms).

    What eSpeak says depends on what it said before: its flutter and breath noise go on from there, even after it is
    ended and started again. Only a library that was unloaded says a text the same way every time.
    """
    if _loaded and fresh:
        _loaded.pop().close()
    if not _loaded:
        _loaded.append(_Espeak())
    return _loaded[0]


@functools.cache
def espeak_names() -> tuple[frozenset[str], frozenset[str]]:
    """The voices (languages such as "en-gb-scotland") and the variants ("f3") that eSpeak NG has here.

    Raises:
        InputError: eSpeak NG is not installed.
    """
    try:
        import espeakng_loader
    except ImportError as error:
        raise InputError(MISSING_ESPEAK) from error
    data = Path(espeakng_loader.get_data_path())
    languages = {path.name.lower() for path in (data / "lang").rglob("*") if path.is_file()}
    return frozenset(languages), frozenset(path.name for path in (data / "voices").rglob("*"))


def speak(text: str, voice: Voice, *, timeout_s: float = COMMAND_TIMEOUT_S) -> np.ndarray:
    """Speak a text; the same text and voice give the same samples, whatever was spoken before.

    Args:
        text: words; for eSpeak also phoneme names between brackets, as `phonemes.written` makes them.
        voice: who speaks.
        timeout_s: after which a command is given up.

    Returns:
        float32 samples at 16 kHz, shape (samples,).

    Raises:
        InputError: the engine is missing, failed, timed out, or made no sound.
    """
    if voice.engine == "espeak":
        espeak = _espeak(fresh=True)
        samples, sample_rate = espeak.speak(text, voice), espeak.sample_rate
    elif voice.engine == "flite":
        samples, sample_rate = _flite(text, voice, timeout_s)
    elif voice.engine == "command":
        samples, sample_rate = _command(text, voice, timeout_s)
    else:
        raise InputError(f"unknown speech engine {voice.engine!r}: use espeak, flite or command")
    if not samples.any():
        raise InputError(f"{voice.speaker} made no sound: check the text and the voice")
    return _at_16_khz(samples, sample_rate)


def phonemes(text: str, *, language: str = "en-us", stress: bool = False) -> list[list[str]]:
    """eSpeak's phoneme names for each word of a text.

    Returns:
        [["h", "@", "l", "oU"], ...]; with `stress` whole names with their marks: "'oU", "i:" (not "i").
    """
    words = []
    for word in _espeak().phonemes(text, language).split():
        names = [name for name in word.split("_") if name.strip(MARKS)]
        words.append([name.strip("|;!") if stress else name.strip(MARKS) for name in names])
    return [word for word in words if word]


def _at_16_khz(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    if sample_rate == SAMPLE_RATE:
        return samples.astype(np.float32)
    import torch
    import torchaudio

    return torchaudio.functional.resample(torch.from_numpy(samples.copy()), sample_rate, SAMPLE_RATE).numpy()


def _flite(text: str, voice: Voice, timeout_s: float) -> tuple[np.ndarray, int]:
    if shutil.which("flite") is None:
        raise InputError("the voice needs flite, which is not installed: use an eSpeak NG voice, or install flite")
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        stretch = f"duration_stretch={1.0 / voice.rate:.3f}"
        _run(
            ["flite", "-voice", voice.name, "--setf", stretch, "-t", text, "-o", str(wav)],
            text=None,
            timeout_s=timeout_s,
        )
        return _read_wav(wav)


def _command(text: str, voice: Voice, timeout_s: float) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "speech.wav"
        try:
            parts = shlex.split(voice.name)
        except ValueError as error:
            raise InputError(f"the speech command {voice.name!r} cannot be taken apart: {error}") from error
        words = [word.replace("{text}", text).replace("{wav}", str(wav)) for word in parts]
        _run(words, text=None if "{text}" in voice.name else text, timeout_s=timeout_s)
        return _read_wav(wav)


def _run(command: list[str], *, text: str | None, timeout_s: float) -> None:
    pipe = subprocess.PIPE
    try:
        # A session of its own, so that what a script started can be ended with it.
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except (OSError, ValueError) as error:  # no such program, not executable; or NUL in the text
        told = "was not found" if isinstance(error, FileNotFoundError) else f"cannot be started ({error})"
        raise InputError(f"the speech command {command[0]!r} {told}: check its name and PATH") from error
    with process:
        try:
            out, err = process.communicate((text or "").encode(errors="replace"), timeout=timeout_s)
        except BaseException as error:
            _end(process)
            if isinstance(error, subprocess.TimeoutExpired):
                raise InputError(f"the speech command {command[0]!r} took over {timeout_s:g} s") from error
            raise
    if process.returncode != 0:
        reason = (err or out).decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise InputError(f"the speech command {command[0]!r} failed with status {process.returncode}: {reason[0]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a command and all that it started."""
    if os.name != "posix":
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _read_wav(path: Path) -> tuple[np.ndarray, int]:
    if not path.is_file():
        raise InputError(f"the speech command wrote no file {path.name}: it must write a WAV to {{wav}}")
    try:
        samples, sample_rate = soundfile.read(io.BytesIO(path.read_bytes()), dtype="float32")
    except soundfile.LibsndfileError as error:
        raise InputError(f"what the speech command wrote is not a WAV ({error.error_string})") from error
    if not np.isfinite(samples).all():
        raise InputError("what the speech command wrote holds samples that are no numbers")
    return (samples.mean(axis=1) if samples.ndim > 1 else samples), sample_rate
