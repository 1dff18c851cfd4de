"""From normal images to an encoder's parameters."""
