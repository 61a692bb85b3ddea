"""The production line, without Dagster: inbox, arrivals, ingest and the line's entry in params.yaml."""
