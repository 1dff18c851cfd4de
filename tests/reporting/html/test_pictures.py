"""Pictures inside a page, decoded again."""

import base64
import io

import numpy as np
from PIL import Image
from skimage import data

from patch_svdd_jax.reporting import overlays
from patch_svdd_jax.reporting.html import pictures


def decode(uri):
  head, _, body = uri.partition(',')
  with Image.open(io.BytesIO(base64.b64decode(body, validate=True))) as picture:
    assert head == f'data:image/{picture.format.lower()};base64'
    return np.asarray(picture.convert('RGB')).astype(int)


def photograph():
  image = data.astronaut()[:240, :320]
  mask = np.zeros(image.shape[:2], bool)
  mask[60:90, 100:180] = True
  return image, mask, np.linspace(0, 1, image[..., 0].size, dtype=np.float32).reshape(mask.shape)


def test_views_are_the_panes_of_the_report():
  image, mask, anomaly_map = photograph()
  views = pictures.views(image, mask, anomaly_map, (0, 1))
  panes = overlays.panes_of(image, mask, anomaly_map, (0, 1), pictures.SIZE)
  assert [view.name for view in views] == ['image', 'ground truth', 'anomaly map', 'overlay']
  for view, pane in zip(views, panes, strict=True):
    assert (view.height, view.width) == pane.shape[:2] == (192, 256)
    assert np.abs(decode(view.uri) - pane).mean() < 6
  assert sum(len(view.uri) for view in views) < 60_000


def test_what_has_no_mask_has_no_outline():
  image, _, anomaly_map = photograph()
  views = pictures.views(image, None, anomaly_map, (0, 1))
  assert [view.name for view in views] == ['image', 'anomaly map', 'overlay']
  _, truth, *_ = pictures.views(image, 'no mask', anomaly_map, (0, 1))
  assert (truth.name, truth.uri, truth.text) == ('ground truth', '', 'no mask')


def test_an_overlay_is_darker_outside_of_the_region():
  image, mask, _ = photograph()
  cold = np.zeros(mask.shape, np.float32)
  whole = overlays.panes_of(image, mask, cold, (0, 1), 256).overlay.astype(float)
  part = overlays.panes_of(image, mask, cold, (0, 1), 256, mask).overlay
  inside = np.zeros(whole.shape[:2], bool)
  inside[48:72, 80:144] = True
  np.testing.assert_array_equal(part[inside], whole[inside])
  np.testing.assert_allclose(part[~inside], 0.4 * whole[~inside], atol=1)


def test_the_colour_scale_has_the_colours_of_the_maps():
  expected = overlays.colour(np.linspace(0, 1, 256)[None], (0, 1))
  np.testing.assert_array_equal(decode(pictures.colour_scale()), expected)
