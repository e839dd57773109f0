"""Augmentation: noise, rooms, channels, accents and synthetic speech, in views that can be rebuilt."""
