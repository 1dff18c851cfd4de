"""What commands say of a detector's images."""

import dataclasses

import numpy as np

from patch_svdd_jax.commands import console
from patch_svdd_jax.detection.detector import Detector


def detector_that_dropped(shares):
  made_without_fitting = Detector(origin=None, params={}, mean=None, banks={})
  return dataclasses.replace(made_without_fitting, dropped=shares)


def test_the_most_suspicious_images_are_named(capsys):
  shares = np.array([0.0, 0.25, 0.02, 0.9, 0.1, 0.05, 0.25])
  console.print_suspects(detector_that_dropped(shares), [f'{i}.png' for i in range(7)])
  (line,) = capsys.readouterr().out.splitlines()
  assert line.endswith(': 3.png (90%), 1.png (25%), 6.png (25%), 4.png (10%), 5.png (5%)')


def test_nothing_is_said_where_nothing_was_dropped(capsys):
  console.print_suspects(detector_that_dropped(None), ['0.png'])
  assert not capsys.readouterr().out
