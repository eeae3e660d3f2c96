"""Why an answer is as it is, as far as that can be seen: maps of where a change moves it, and what channels answer to.

A map is told in the pixels of the upright image on disk, and comes with a check of itself (``deletion.py``).
"""
