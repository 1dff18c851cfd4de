"""Regions of hand-made maps, in pixels of images of other sizes."""

import numpy as np

from patch_svdd_jax.detection import regions
from patch_svdd_jax.detection.regions import Region


def make_map():
  values = np.zeros((10, 20), np.float32)
  values[2:4, 5:9] = 1.0
  values[4, 9] = 2.0  # touches by a corner
  values[8, 0] = 5.0
  return values


def test_boxes_areas_and_scores():
  found = regions.find(make_map(), 0.5, (10, 20))
  assert found == (Region((0, 8, 1, 1), 1, 5.0), Region((5, 2, 5, 3), 9, 2.0))


def test_they_are_in_pixels_of_the_original_image():
  small, large = regions.find(make_map(), 0.5, (40, 60))
  assert small == Region((0, 32, 3, 4), 12, 5.0)
  assert large == Region((15, 8, 15, 12), 108, 2.0)


def test_boxes_hold_the_region_where_pixels_do_not_align():
  (one, _) = regions.find(make_map(), 0.5, (7, 13))
  assert one.box == (0, 5, 1, 2)  # rows 5.6 to 6.3, columns 0 to .65
  assert one.area == 1


def test_the_threshold_itself_is_not_above_it():
  assert len(regions.find(make_map(), 1.0, (10, 20))) == 2
  assert len(regions.find(make_map(), 2.0, (10, 20))) == 1
  assert regions.find(make_map(), 5.0, (10, 20)) == ()
