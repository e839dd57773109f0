"""Adaptation: what trains, the training loop, and what keeps general speech."""
