"""Read and write files of Gaussians and of depth."""
