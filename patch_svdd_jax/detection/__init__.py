"""From an encoder's parameters to anomaly maps, scores and verdicts."""
