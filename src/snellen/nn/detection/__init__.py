"""Detectors: images -> boxes with a score for each class; and what they share: truth, losses, assignment, selection."""
