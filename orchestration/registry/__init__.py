"""The model registry in MLflow: versions of each line's detector, with champion and challenger."""
