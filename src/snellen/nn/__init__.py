"""Building blocks of networks, and where their weights come from."""
