"""The embedded data set: three photographs of textures, cut up, and synthetic defects.

The photographs (brick, grass, gravel; 512 x 512, grey, CC0) are installed with scikit-image. Two
strips at the left and right edges give the training images, the strip between them the test images,
so that no test pixel occurs in training while every height of the slightly tilted views occurs in
both. Training images overlap each other, and so do test images. Training and normal test images are
plain crops of the photographs.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from patch_svdd_jax.data import defects, images
from patch_svdd_jax.data.builder import Builder, example
from patch_svdd_jax.system.digests import digest_parts

CATEGORIES = ('brick', 'grass', 'gravel')
SIZE = 128  # of an image, pixels; two K=64 patches beside each other
TEST_COLUMNS = (160, 352)  # the strip of the test images; training images come from both sides
NORMAL_TEST_IMAGES = 20
IMAGES_PER_DEFECT = 6
_SEED = 20200629


def photographs() -> dict[str, np.ndarray]:
  """Returns the three photographs, u8[512, 512] each, from the installed scikit-image."""
  import skimage.data

  return {category: getattr(skimage.data, category)() for category in CATEGORIES}


def train_corners() -> list[tuple[int, int]]:
  """Returns (top, left) of the training images: every 16 rows, two columns in either strip."""
  first, last = TEST_COLUMNS
  columns = (0, first - SIZE, last, 512 - SIZE)
  return [(top, left) for top in range(0, 512 - SIZE + 1, 16) for left in columns]


def test_corners() -> list[tuple[int, int]]:
  """Returns (top, left) of all test images: every 24 rows, every 16 columns of the strip."""
  first, last = TEST_COLUMNS
  lefts = range(first, last - SIZE + 1, 16)
  return [(top, left) for top in range(0, 512 - SIZE + 1, 24) for left in lefts]


def crop(photograph: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
  """Crops u8[SIZE, SIZE] out of a photograph."""
  top, left = corner
  return photograph[top : top + SIZE, left : left + SIZE]


def _generator(*names: str) -> np.random.Generator:
  """Returns independent random numbers for every combination of names."""
  key = hashlib.sha256('/'.join(names).encode()).digest()[:8]
  return np.random.Generator(np.random.PCG64([_SEED, int.from_bytes(key, 'big')]))


def train_crops(photograph: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the pixels u8[SIZE, SIZE] of each training image, by its name."""
  return {
    f'train/good/{i:03}.png': crop(photograph, corner) for i, corner in enumerate(train_corners())
  }


def clean_test_crops(category: str, photograph: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the crop that each test image is made of, by its name; all crops differ."""
  names = [f'test/good/{i:03}.png' for i in range(NORMAL_TEST_IMAGES)]
  names += [f'test/{kind}/{i:03}.png' for kind in defects.KINDS for i in range(IMAGES_PER_DEFECT)]
  corners = test_corners()
  order = np.argsort(_generator(category).random(len(corners)))
  return {
    name: crop(photograph, corners[k]) for name, k in zip(names, order[: len(names)], strict=True)
  }


def _foreign_texture(category: str, name: str) -> str:
  others = [other for other in CATEGORIES if other != category]
  return others[int(_generator(category, name, 'other').random() * len(others))]


class Textures(Builder):
  """Brick, grass and gravel, one config a photograph."""

  name = 'textures'
  BUILDER_CONFIGS = [  # noqa: RUF012, as TFDS has it
    tfds.core.BuilderConfig(name=category, description=f'Photograph of {category}.')
    for category in CATEGORIES
  ]

  def _info(self) -> tfds.core.DatasetInfo:
    return self._dataset_info(
      description='Crops of three photographs of textures, with synthetic defects.',
      homepage='https://scikit-image.org/docs/stable/api/skimage.data.html',
      license='CC0-1.0',
    )

  @functools.cached_property
  def _photographs(self) -> dict[str, np.ndarray]:
    return photographs()

  def fingerprint(self) -> str:
    """Returns a digest of the photographs' pixels."""
    digest = hashlib.sha256()
    for photograph in self._photographs.values():
      digest.update(photograph.tobytes())
    return digest.hexdigest()

  def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterable[Any]]:
    del dl_manager
    category = self.builder_config_name
    photograph = self._photographs[category]
    return {
      'train': self._generate_examples(train_crops(photograph), 'train'),
      'test': self._generate_examples(clean_test_crops(category, photograph), 'test'),
    }

  def _generate_examples(
    self, crops: Mapping[str, np.ndarray], split: str
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    category = self.builder_config_name
    for index, name in enumerate(self._progress(list(crops), split)):
      kind = name.split('/')[1]
      image = crops[name]
      mask = np.zeros(image.shape, bool)
      if kind in defects.KINDS:
        other = self._photographs[_foreign_texture(category, name)]
        image, mask = defects.add_defect(_generator(category, name), kind, image, other)
      yield index, _example(image, mask, kind, name)


def _example(image: np.ndarray, mask: np.ndarray, defect: str, name: str) -> dict[str, Any]:
  rgb = np.repeat(image[..., None], 3, axis=-1)
  png = images.encode_png(rgb), images.encode_png(mask)
  digest = digest_parts(rgb.tobytes(), mask.tobytes())
  return example(*png, has_mask=True, defect=defect, name=name, digest=digest)
