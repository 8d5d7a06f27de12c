"""Offline half: turn a diffusers checkpoint into an engine bundle."""
