"""The pictures of the README and of docs/: `python -m benchmarks.pictures` makes them, one file per picture."""
