"""Study: the table that compares policies and detectors."""
