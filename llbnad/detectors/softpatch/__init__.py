"""SoftPatch (arXiv 2403.14233): PatchCore with a memory that drops and weighs patches by outlier factors."""
