"""MLflow runs: record what stages made. Nothing here decides a byte of an output."""
