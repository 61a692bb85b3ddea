"""Study: the comparison table of policies and detectors."""
