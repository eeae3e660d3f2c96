"""Checks over the records before anything is trained."""
