"""The nouns that every room shares; knows no task and no file format."""
