"""The demo model: procedural clips, training and evaluation of a small masked image-to-video network."""
