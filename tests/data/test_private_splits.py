"""The private splits of MVTec AD 2 are listed by their official names, and by no others."""

import re

import pytest

from patch_svdd_jax import data
from patch_svdd_jax.data import private_splits
from patch_svdd_jax.data.catalogue import BUILDERS
from patch_svdd_jax.data.mvtec_ad_2 import MvtecAd2
from patch_svdd_jax.errors import UserError
from tests.data import downloads


@pytest.fixture
def download(tmp_path, monkeypatch):
  monkeypatch.setitem(private_splits.COUNTS, 'vial', 2)
  return downloads.mvtec_ad_2(tmp_path / 'official')


def test_official_counts_add_up():
  """With the other splits, to the 8,004 images of the whole data set."""
  assert private_splits.COUNTS.keys() == MvtecAd2.counts.keys()
  others = sum(sum(counts) for counts in MvtecAd2.counts.values())
  assert others + len(private_splits.SPLITS) * sum(private_splits.COUNTS.values()) == 8004


def test_both_splits_are_listed(download):
  found = private_splits.find(download.root, 'vial')
  assert [source.name for source in found] == [
    'test_private/000_regular.png',
    'test_private/001_regular.png',
    'test_private_mixed/000_mixed.png',
    'test_private_mixed/001_mixed.png',
  ]
  assert all(source.path == download.folder / source.name for source in found)


@pytest.mark.parametrize(
  ('change', 'words'),
  [
    (lambda folder: (folder / '001_mixed.png').unlink(), '1 missing (001_mixed)'),
    (
      lambda folder: (folder / '001_mixed.png').rename(folder / '002_mixed.png'),
      '1 missing (001_mixed), 1 too many (002_mixed)',
    ),
    (lambda folder: (folder / '001_mixed.jpg').touch(), '1 too many (001_mixed)'),
  ],
)
def test_other_images_than_the_official_ones_are_named(download, change, words):
  change(download.folder / 'test_private_mixed')
  with pytest.raises(UserError, match=f'vial/test_private_mixed: {re.escape(words)}; take the'):
    private_splits.find(download.root, 'vial')


def test_an_archive_is_to_be_extracted(tmp_path):
  (tmp_path / 'mvtec_ad_2.tar.gz').touch()
  with pytest.raises(UserError, match=r'mvtec_ad_2\.tar\.gz: is a file; extract it'):
    private_splits.find(tmp_path / 'mvtec_ad_2.tar.gz', 'vial')


@pytest.mark.parametrize(
  ('name', 'light'),
  [
    ('test_public/bad/000_regular.png', 'regular'),
    ('vial/test_public/good/012_shift_3.png', 'shift_3'),
    ('test_public/bad/104_underexposed.png', 'underexposed'),
    ('test_public/bad/104_overexposed.png', 'overexposed'),
    ('test_public/bad/104.png', ''),
    ('test_public/regular/104_bright.png', ''),
  ],
)
def test_the_light_of_a_name(name, light):
  assert MvtecAd2.lighting(name) == light


def test_lights_are_those_of_the_test_images(download, settings):
  config = settings(name='mvtec_ad_2', category='vial', root=str(download.root))
  loaded = data.load(config)
  assert [name.rpartition('_')[2] for name in loaded.test.names] == ['regular.png', '1.png'] * 2
  assert loaded.lights == ('regular', 'shift_1') * 2
  config.category = 'multiclass'
  assert data.load(config).lights == loaded.lights


def test_other_data_sets_say_nothing_of_light(tmp_path, settings):
  made = downloads.mvtec(tmp_path / 'official')
  config = settings(name='mvtec', category=made.category, root=str(made.root))
  assert data.load(config).lights == ()
  assert all(
    b.lighting('a/000_regular.png') == '' for n, b in BUILDERS.items() if n != 'mvtec_ad_2'
  )
