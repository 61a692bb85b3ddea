"""Regions: where an image is anomalous, and how large. Connected parts of the anomaly map, in the image's pixels."""
