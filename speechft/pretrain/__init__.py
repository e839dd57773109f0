"""Training a small Whisper from nothing on synthetic speech: how `nano` was made (`scripts/train_base.py`)."""
