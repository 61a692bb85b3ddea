"""The model registry in MLflow: versions of each line's detector, champion and challenger."""
