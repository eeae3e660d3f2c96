"""From files to records, splits and batches of pixels."""
