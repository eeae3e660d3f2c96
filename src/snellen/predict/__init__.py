"""A model over new images -> predictions, as pictures, tables or files of annotations."""
