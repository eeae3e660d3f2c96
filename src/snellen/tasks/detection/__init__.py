"""Object detection: which things are in an image, and where, as boxes."""
