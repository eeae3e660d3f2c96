"""Maths on arrays: how good predictions are, and how sure that number is."""
