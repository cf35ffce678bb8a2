"""Everything around the arithmetic: keyed work folders, safe files, addressed randomness."""
