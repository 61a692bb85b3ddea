"""Monitoring: judge a production line by its images and its new detectors."""
