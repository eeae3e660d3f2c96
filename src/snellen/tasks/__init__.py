"""What is learnt from images: the contract, and one slice per task."""
