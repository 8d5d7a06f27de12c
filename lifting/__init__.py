"""Lift a panoramic video to 3D Gaussians, frame by frame."""
