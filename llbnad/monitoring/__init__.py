"""Monitoring of a production line: its new images, and the new detectors that want to follow the one in use."""
