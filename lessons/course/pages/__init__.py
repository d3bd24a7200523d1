"""Lessons as scripts, pages and notebooks; their figures, and the bases that they start from."""
