"""PatchCore (arXiv 2106.08265): distance to the nearest patch of a memory."""
