"""MLflow runs: the record of what stages made. Nothing here decides a byte of an output."""
