"""Digests tell contents from others."""

import itertools

from patch_svdd_jax.system.digests import digest_parts


def test_parts_are_told_from_others_and_from_the_same_bytes_cut_elsewhere():
  contents = [(), (b'',), (b'', b''), (b'ab', b'c'), (b'a', b'bc'), (b'abc',), (b'abd',)]
  for one, other in itertools.combinations(contents, 2):
    assert digest_parts(*one) != digest_parts(*other)
  assert digest_parts(b'ab', memoryview(b'c')) == digest_parts(b'ab', b'c')
