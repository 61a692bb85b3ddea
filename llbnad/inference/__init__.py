"""Inference: score new images with a model file, export it as one graph."""
