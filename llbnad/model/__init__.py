"""Model: a trained detector with its encoder, scores and threshold."""
