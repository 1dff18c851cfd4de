"""The contrastive loss of neighbour pairs in float64."""

import numpy as np
from scipy import special


def contrast64(z, z_neighbour, temperature):
  """Half of the cross entropies of both directions, of f64[B, D] and f64[B, D]."""
  z, z_neighbour = np.float64(z), np.float64(z_neighbour)
  mean = np.concatenate([z, z_neighbour]).mean(axis=0)
  q, p = (
    (each - mean) / (np.linalg.norm(each - mean, axis=1, keepdims=True) + 1e-6)
    for each in (z, z_neighbour)
  )
  logits = q @ p.T / temperature
  return -sum(np.diag(special.log_softmax(each, axis=1)).mean() for each in (logits, logits.T)) / 2
