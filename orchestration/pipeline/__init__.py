"""The pipeline of record: paths, parameters, settings, validation, DVC, code digests."""
