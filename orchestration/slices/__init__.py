"""Scenarios worked apart: slices of the repository on this machine and on others, and their union."""
