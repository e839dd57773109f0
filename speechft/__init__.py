"""speechft adapts a Whisper model to your terms, accents and rooms, and proves what changed."""

__version__ = "0.1.0"
