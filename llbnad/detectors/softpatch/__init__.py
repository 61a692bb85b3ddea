"""SoftPatch (arXiv 2403.14233): PatchCore that weighs and drops patches by outlier factors."""
