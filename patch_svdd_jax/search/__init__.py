"""The exact search for the nearest rows of a memory bank; it stands alone."""
