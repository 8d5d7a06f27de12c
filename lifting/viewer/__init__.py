"""Look at a scene in a browser: a page served on this machine, or one HTML file."""
