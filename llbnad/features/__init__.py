"""Features: the cache of encoded images, the batches that detectors read, and one vector per image."""
