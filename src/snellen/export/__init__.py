"""A trained model -> an artifact for other runtimes, verified against the run before it is written."""
