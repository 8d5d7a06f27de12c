"""Online half: run an engine bundle on a panorama with NumPy and one inference backend."""
