"""Inference: score new images with a model, and export a model as one graph."""
