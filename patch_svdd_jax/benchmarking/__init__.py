"""How fast a detector is on the machine at hand, beside other ways to run it."""
