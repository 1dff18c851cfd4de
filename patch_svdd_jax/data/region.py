"""The region of interest: where images are judged, given by pictures that are white there.

`config.data.region` names a PNG, for all images, or a folder of one for each, below
`config.data.root` (in the category's folder, or else in the root itself) unless it is absolute.

  - A pixel is inside where it is brighter than half, and not transparent.
  - A region lies on the upright image, as viewers show it: the orientation of an image's EXIF does
    not turn its region. Resized it is by nearest neighbour, as masks are.
  - In a folder the region of train/good/001.png is train/good/001.png, of whatever suffix the image
    is, or else 001.png where no other image of the data set has that stem.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import ml_collections
import numpy as np

from patch_svdd_jax.data import image_size, images, mirror
from patch_svdd_jax.data.dataset import Split
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import store

KEY = 'config.data.region'
SUFFIX = '.png'
# Images that an error names.
_SHOWN = 3


def with_regions(
  splits: Mapping[str, Split], config: ml_collections.ConfigDict
) -> Mapping[str, Split]:
  """Reads the regions of a category's images.

  Args:
    splits: of the category; 'train' has its training images.
    config: `config.data`, whose name, category, root and region count.

  Returns:
    The splits, with their regions.

  Raises:
    UserError: names the file that is missing, cannot be read, or does not fit its image.
  """
  if not config.region:
    return splits
  place = find(config)
  if place.is_dir():
    files = files_of(place, [name for split in splits.values() for name in split.names])
    return {key: _with_own(split, files) for key, split in splits.items()}
  _check_apart(place, config, splits.values())
  region = _read(place)
  if len(splits['train']):
    height, width = np.median(splits['train'].sizes, axis=0)
    _check_aspect(place, region, (height, width), 'the training images')
  return {key: _with_fixed(split, region, str(place)) for key, split in splits.items()}


def attach(
  split: Split, path: pathlib.Path, config: ml_collections.ConfigDict, fixed: np.ndarray | None
) -> Split:
  """Gives an image that is to be judged its region: the detector's, or that of a file near it.

  The file is looked for in the folder `config.region` beside the image, then beside each folder
  above, where it has the image's path from there: parts/roi/new/001.png for parts/new/001.jpg.

  Args:
    split: of one image.
    path: of its file.
    config: `config.data` of the detector.
    fixed: the region bool[H, W] that all images have in common, if there is one.

  Raises:
    UserError: the image needs a region of its own, and there is none, or it does not fit.
  """
  if not config.region or fixed is not None:
    inside = None if fixed is None else np.broadcast_to(fixed, (len(split), *fixed.shape))
    return dataclasses.replace(split, regions=inside)
  absolute = path.absolute()
  above = [
    each / pathlib.Path(config.region).expanduser() / absolute.relative_to(each)
    for each in absolute.parents
  ]
  candidates = [each.with_suffix(SUFFIX) for each in above]
  file = next((each for each in candidates if each.is_file()), None)
  if file is None:
    raise UserError(
      f'{path}: has no region of interest, which each image needs: it is looked for as '
      f'{candidates[0]}, and beside the folders above'
    )
  return _with_own(split, {split.names[0]: file})


def find(config: ml_collections.ConfigDict) -> pathlib.Path:
  """Returns the file or folder that config.data.region names.

  Raises:
    UserError: nothing is there.
  """
  given = pathlib.Path(config.region).expanduser()
  if given.is_absolute():
    looked = [given]
  elif not config.root:
    raise UserError(
      f'{KEY}={config.region!r}: is looked for below config.data.root, which is empty; give an '
      'absolute path'
    )
  else:
    looked = list(dict.fromkeys(folder / given for folder in _folders(config)))
  for place in looked:
    if place.exists():
      return place
  raise UserError(
    f'{" or ".join(map(str, looked))}: no such file or folder; {KEY} names a PNG that is white '
    'where images are judged, or a folder of one for each image'
  )


def _folders(config: ml_collections.ConfigDict) -> list[pathlib.Path]:
  """Returns the folders to look in; the folder of a list or an archive is that which holds it."""
  if store.is_url(config.root):
    places = [mirror.below(config.root, config.category if config.name == 'folder' else '')]
  else:
    root = mirror.place(config.root, mirror.KEY)
    places = [root / config.category, root]
  return [place.parent if place.is_file() else place for place in places]


def files_of(folder: pathlib.Path, names: Sequence[str]) -> dict[str, pathlib.Path]:
  """Returns the file of each image's region, by the image's name.

  Raises:
    UserError: an image has none, or it may be that of another; names them.
  """
  stems = collections.Counter(pathlib.PurePosixPath(name).stem for name in names)
  found, missing, ambiguous = {}, [], []
  for name in names:
    below = _relative(name)
    own, shared = folder / below, folder / below.name
    if own.is_file() and own != shared:
      found[name] = own
    elif shared.is_file():
      found[name] = shared
      ambiguous += [(shared, name)] if stems[below.stem] > 1 else []
    else:
      missing.append(name)
  if missing:
    more = ', ...' if len(missing) > _SHOWN else ''
    raise UserError(
      f'{folder}: has no region of {len(missing)} of {len(names)} images '
      f'({", ".join(missing[:_SHOWN])}{more}): that of {missing[0]} is {_relative(missing[0])}, or '
      f'{_relative(missing[0]).name} where no other image has that stem'
    )
  owners = collections.Counter(found.values())
  ambiguous += [(file, name) for name, file in found.items() if owners[file] > 1]
  if ambiguous:
    file, name = ambiguous[0]
    raise UserError(
      f'{file}: may be the region of {name}, or of another image of that stem: put it where its '
      f'image is, as {folder / _relative(name)}'
    )
  return found


def _relative(name: str) -> pathlib.PurePosixPath:
  """Returns the path of an image's region in the folder of regions."""
  parts = [part for part in pathlib.PurePosixPath(name).parts if part not in ('/', '..')]
  return pathlib.PurePosixPath(*parts).with_suffix(SUFFIX)


def _read(path: pathlib.Path) -> np.ndarray:
  """Returns the region bool[h, w] of a file."""
  return images.decode_region(images.read_bytes(path), str(path))


def _with_own(split: Split, files: Mapping[str, pathlib.Path]) -> Split:
  regions = np.zeros((len(split), *split.images.shape[1:3]), bool)
  for index, name in enumerate(split.names):
    file = files[name]
    own = _read(file)
    _check_aspect(file, own, split.sizes[index], f'its image {name}')
    regions[index] = resized(own, split.images.shape[1:3], str(file))
  return dataclasses.replace(split, regions=regions)


def _with_fixed(split: Split, region: np.ndarray, name: str) -> Split:
  one = resized(region, split.images.shape[1:3], name)
  return dataclasses.replace(split, regions=np.broadcast_to(one, (len(split), *one.shape)))


def resized(region: np.ndarray, size: Sequence[int], name: str) -> np.ndarray:
  """Returns a region bool[h, w] at the size (height, width) of the images.

  Raises:
    UserError: no pixel is inside; names it.
  """
  small = images.resize_mask(region, (size[0], size[1]))
  if small.any():
    return small
  why = 'has no pixel that is brighter than half'
  if region.any():
    why = f'has no pixel left at {size[0]}x{size[1]} pixels'
  raise UserError(f'{name}: the region is empty: it {why}; white is inside')


def _check_aspect(
  path: pathlib.Path | str, region: np.ndarray, size: Iterable[float], what: str
) -> None:
  """Refuses a region bool[h, w] whose aspect ratio is not that of what it lies on."""
  height, width = size
  aspect = float(width / height)
  if image_size.stretch(aspect, np.array([region.shape]))[0] > 1 + image_size.TOLERANCE:
    raise UserError(
      f'{path}: the region is {region.shape[1]} x {region.shape[0]} pixels, but {what} '
      f'{width:.0f} x {height:.0f}: draw it on an image, at any size of the same aspect ratio'
    )


def _check_apart(
  place: pathlib.Path, config: ml_collections.ConfigDict, splits: Iterable[Split]
) -> None:
  """Refuses a region that was read as an image, too, as one of another name than region.png."""
  names = {name for split in splits for name in split.names}
  if config.root and not store.is_url(config.root):
    for folder in _folders(config):
      if place.is_relative_to(folder) and place.relative_to(folder).as_posix() in names:
        raise UserError(f'{place}: is the region, and read as an image: call it region.png')


def given(
  region: object, sizes: np.ndarray, size: Sequence[int], names: Sequence[str]
) -> np.ndarray:
  """Returns the regions bool[N, H, W] of N images that are arrays.

  Args:
    region: bool[h, w], for all, or one for each.
    sizes: i64[N, 2], (height, width) of each image.
    size: (height, width) of all when they are resized.
    names: of the images, for errors.

  Raises:
    UserError: it is something else, or does not fit.
  """
  if isinstance(region, np.ndarray) and region.ndim == 2:
    _check_array(region, 'region')
    height, width = np.median(sizes, axis=0)
    _check_aspect('the array', region, (height, width), 'the images are')
    return np.broadcast_to(resized(region, size, 'region'), (len(names), *size))
  if not isinstance(region, Iterable) or isinstance(region, str | bytes):
    raise UserError(f'region is of type {type(region).__name__}: give bool[height, width]')
  each = list(region)
  if len(each) != len(names):
    raise UserError(
      f'{len(each)} regions for {len(names)} images: give one for each, or a single '
      'bool[height, width] for all'
    )
  regions = np.zeros((len(names), *size), bool)
  for index, (one, name) in enumerate(zip(each, names, strict=True)):
    text = f'region of {name}'
    _check_array(one, text)
    _check_aspect(text, one, sizes[index], 'its image is')
    regions[index] = resized(one, size, text)
  return regions


def _check_array(region: object, name: str) -> None:
  if not isinstance(region, np.ndarray) or region.dtype != bool or region.ndim != 2:
    raise UserError(f'{name}: give a numpy array bool[height, width], True inside')
