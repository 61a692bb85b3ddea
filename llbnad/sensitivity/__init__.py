"""Sensitivity without labels: which drawn defects a detector finds, and which harmless changes alarm it."""
