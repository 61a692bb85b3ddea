"""Dinomaly (arXiv 2405.14325): reconstruction of features by a decoder that is kept from copying."""
