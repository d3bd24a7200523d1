"""What an exercise is, a process of its own to run it in, and the verdict on what came out."""
