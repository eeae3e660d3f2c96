"""How much of something an image shows: one number, or several."""
