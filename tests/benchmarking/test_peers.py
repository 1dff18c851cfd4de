"""Which libraries take part, and what is said of the others."""

import importlib

import pytest

from patch_svdd_jax.benchmarking import peers


def test_a_peer_that_is_there_is_not_missing():
  assert peers.why_missing('sklearn') is None


@pytest.mark.parametrize(
  ('code', 'reason'),
  [
    (None, "No module named 'strange_peer'"),
    ('raise ImportError("libfast.so.9: cannot open shared object file")', 'libfast.so.9: cannot'),
    ('raise OSError("libslow.so: no such file\\nand more")', 'libslow.so: no such file'),
  ],
)
def test_a_peer_that_cannot_be_imported_is_missing(tmp_path, monkeypatch, code, reason):
  if code:
    (tmp_path / 'strange_peer.py').write_text(code)
  monkeypatch.syspath_prepend(tmp_path)
  importlib.invalidate_caches()
  said = peers.why_missing('strange_peer')
  assert said.startswith(reason)
  assert '\n' not in said
