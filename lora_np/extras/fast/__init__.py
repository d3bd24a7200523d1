"""The same numbers in less time or memory. Nothing here is needed to understand the rest."""
