"""Utilities that know nothing of the method: files, hashing, progress, threads."""
