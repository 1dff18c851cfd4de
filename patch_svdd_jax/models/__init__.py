"""The encoder: its layers, what a patch is, and how whole images are embedded."""
