"""Utilities that do not depend on the method: files, hashing, progress, threads."""
