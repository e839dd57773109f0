"""All that knows the insides of Whisper."""
