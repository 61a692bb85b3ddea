"""Live inspection: images of a line are scored as they arrive, and a page on which people drop images."""
