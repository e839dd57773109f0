"""Counts, intervals and decisions from text alone: no audio, no torch."""
