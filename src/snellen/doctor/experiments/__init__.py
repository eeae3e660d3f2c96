"""Experiments on one model: each asks a question that tells one cause of a symptom from the others."""
