"""Model: a trained detector with its encoder, its scores and its threshold."""
