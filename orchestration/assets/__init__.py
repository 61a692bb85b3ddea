"""Dagster: assets generated from dvc.yaml, partitions, sensors, schedules, checks."""
