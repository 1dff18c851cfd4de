"""What `patch-svdd benchmark` measures, beside what others measure on the same machine."""
