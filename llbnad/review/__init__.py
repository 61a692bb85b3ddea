"""Review: the page on which people judge suspect images."""
