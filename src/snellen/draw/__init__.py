"""Pixels and charts."""
