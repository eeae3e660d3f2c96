"""What is wrong with a training, how that is known, and what helps."""
