"""Read and write files of Gaussians and of depth; `table` finds the one that a suffix names."""
