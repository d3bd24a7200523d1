"""What is not mathematics: checks and their error texts, progress, terminals, colours, memory."""
