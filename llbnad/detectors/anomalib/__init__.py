"""A detector that trains any image model of anomalib."""
