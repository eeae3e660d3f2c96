"""What a model's answers to labelled images say of the model, of its number, and of what it fails on."""
