"""Dinomaly (arXiv 2405.14325): reconstruct features with a decoder that is kept from copying."""
