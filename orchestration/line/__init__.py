"""The production line without Dagster: inbox, arrivals, ingest, its entry in params.yaml."""
