"""What students and teachers see: feedback, hints, progress, and the grades of a class."""
