"""A detector behind HTTP: uploads in, verdicts out, one device for all who ask."""
