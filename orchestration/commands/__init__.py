"""The commands of `python -m orchestration`, one module per command."""
