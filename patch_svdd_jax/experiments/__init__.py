"""Runs in folders on disk, alone and in rows."""
