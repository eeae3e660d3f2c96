"""What the curves of a training say. A curve alone is a signal: other causes may have drawn it."""
