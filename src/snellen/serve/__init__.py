"""Models over HTTP: the Open Inference Protocol, a plain /predict, and a page; nothing here imports torch."""
