"""Features: the cache of encoded images, the batches that detectors read, one vector per image."""
