"""Data: read images and masks, list them in a manifest, add noise by protocol."""
