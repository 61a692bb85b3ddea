"""Any image model of anomalib as a detector."""
