"""A line: images are scored as they arrive, and what is found of each is sent on."""
