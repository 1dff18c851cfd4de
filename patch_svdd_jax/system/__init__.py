"""The machine and the disk: devices, files, digests, and how long work is shown."""
