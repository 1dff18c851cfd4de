"""Tiny folders in the layout of MVTec AD, and configs to load them."""

import ml_collections
import pytest

from tests.support import categories


@pytest.fixture
def make_category():
  """Writes a tiny category."""
  return categories.write


@pytest.fixture
def settings(tmp_path):
  """Returns config.data with some settings replaced; images keep the tiny category's size."""

  def make(**changes) -> ml_collections.ConfigDict:
    config = ml_collections.ConfigDict(
      {
        'name': 'folder',
        'category': '',
        'root': '',
        'prepared': str(tmp_path / 'prepared'),
        'image_size': (12, 10),
        'resize': 'bicubic',
        'value_range': (),
        'light': 'kept',
        'normal_images': 0,
        'contamination': 0.0,
        'contamination_overlap': False,
        'held_out': 0.0,
        'cache_gib': 1.0,
        'region': '',
        'region_share': 0.5,
      }
    )
    config.update(changes)
    return config

  return make
