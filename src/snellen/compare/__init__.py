"""Runs against each other on the same images: which is better, by how much, and whether that is shown."""
