"""What is predicted, as files: a module for each kind of file, and the table of them."""
