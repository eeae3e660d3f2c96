"""What each pixel of an image shows: one of the known classes."""
