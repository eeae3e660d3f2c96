"""Instance segmentation: which things are in an image, and which pixels belong to each."""
