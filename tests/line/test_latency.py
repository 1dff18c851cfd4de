"""Quantiles against numpy's."""

import math

import numpy as np
import pytest

from patch_svdd_jax.line.latency import LATEST, Latency, text


def test_quantiles_of_the_latest_and_of_all():
  seconds = np.random.default_rng(0).lognormal(-3, 1, 3000)
  latency = Latency()
  for each in seconds:
    latency.add(each)
  for share in (0.5, 0.95):
    assert latency.latest(share) == pytest.approx(np.quantile(seconds[-LATEST:], share))
    exact = np.quantile(seconds, share, method='inverted_cdf')
    assert latency.of_all(share) == pytest.approx(exact, rel=0.01)


def test_of_nothing():
  assert math.isnan(Latency().latest(0.5))
  assert math.isnan(Latency().of_all(0.5))
  assert [text(each) for each in (math.nan, 0.0123, 3.44)] == ['-', '12 ms', '3.4 s']
