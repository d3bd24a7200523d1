"""What draws the figures of the lessons, a file a lesson. Each function draws one figure and saves it."""
