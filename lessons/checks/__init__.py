"""One file for each exercise: its inputs, checks, hints, and the misconceptions that the checker knows by name."""
