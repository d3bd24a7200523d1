"""The course: run `python -m lessons`, or read the .md files in order."""
