"""Optimise Gaussians against the panoramas they were placed from; needs torch."""
