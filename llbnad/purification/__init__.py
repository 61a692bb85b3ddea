"""Purification, stage 1 of LLBNAD (arXiv 2508.07441): sub-models score every image, and their consensus selects."""
