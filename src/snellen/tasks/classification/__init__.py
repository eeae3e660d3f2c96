"""Which class, or which classes, an image belongs to."""
