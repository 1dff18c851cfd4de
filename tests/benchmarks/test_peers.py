"""The plain scan, and each peer that is installed, find the distances that float64 finds."""

import numpy as np
import pytest
from scipy.spatial import distance

from benchmarks import peers
from patch_svdd_jax.benchmarking import machine

# What SWIG's modules, faiss among them, say when they are imported.
pytestmark = pytest.mark.filterwarnings('ignore:builtin type .* has no __module__')


@pytest.mark.parametrize('k', [1, 3])
@pytest.mark.parametrize('name', peers.PEERS)
def test_a_peer_finds_the_nearest_rows(monkeypatch, name, k):
  peer = peers.PEERS[name]
  pytest.importorskip(peer.module, exc_type=ImportError)
  monkeypatch.setattr(peers, 'TORCH_DISTANCES', 40 * 70)  # several blocks, the last is smaller
  rng = np.random.default_rng(0)
  queries, rows = (rng.standard_normal((n, 24), dtype=np.float32) for n in (40, 281))
  queries[0] = rows[7]
  found = peer.prepare(rows, k)(queries)
  expected = np.sort(distance.cdist(queries, rows), axis=1)[:, :k]
  assert found.shape == (40, k)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=5e-3)
  assert 1 <= peer.threads() <= machine.cores()


@pytest.mark.parametrize('k', [1, 4])
def test_the_plain_scan_finds_the_nearest_rows(k):
  rng = np.random.default_rng(0)
  queries, rows = (rng.standard_normal((n, 16), dtype=np.float32) for n in (30, 2500))
  found = peers.prepare_plain_scan(rows, k)(queries)
  expected = np.sort(distance.cdist(queries, rows), axis=1)[:, :k]
  np.testing.assert_allclose(found, expected, rtol=1e-5)
