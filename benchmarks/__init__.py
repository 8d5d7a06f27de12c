"""Measure what the project claims; each script writes one JSON under ``results/``."""
