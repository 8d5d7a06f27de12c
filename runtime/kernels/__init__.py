"""Fuse and compose tiles: each kernel beside its float64 reference."""
