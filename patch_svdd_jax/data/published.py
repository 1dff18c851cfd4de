"""What the published data sets share: their official download, and what is checked of it."""

import abc
import dataclasses
import pathlib
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow_datasets as tfds

from patch_svdd_jax.data import archive, layout, mirror, passed_over, report
from patch_svdd_jax.data.builder import LayoutBuilder
from patch_svdd_jax.data.report import Case
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import digest_cache, working_copy

WHOLE = 'all'  # the one category of a data set that has no categories


class Counts(NamedTuple):
  """How many images a category has; None where no official number is known."""

  train: int | None
  good: int | None  # of the test images
  defective: int | None  # of the test images
  validation: int | None = 0

  def __str__(self) -> str:
    train, good, defective, validation = ('?' if n is None else f'{n}' for n in self)
    text = f'{train} training, {good} good test, {defective} defective test'
    return text if self.validation == 0 else f'{text}, {validation} validation'

  def agree(self, found: 'Counts') -> bool:
    """Returns whether `found` has every number that is known."""
    return all(want in (None, have) for want, have in zip(self, found, strict=True))


class PublishedBuilder(LayoutBuilder):
  """A published data set, one config a category. A subclass is a table, and how files are listed.

  Class attributes:
    title, description, homepage, license, citation: of the data set.
    counts: the official number of images of each category.
    parts: what of a category's folder is read, where the official download is a tar archive;
      empty where it is another one, which has to be extracted first.
    unread: names of folders inside of these that are not read.
    without_masks: the categories whose defective images have none in the official data.

  Args:
    root: the official archive, or the folder it was extracted to; may be empty where the category
      is prepared already.
  """

  title: str
  description: str
  homepage: str
  license: str
  citation: str
  counts: Mapping[str, Counts]
  parts: tuple[str, ...] = ()
  unread: tuple[str, ...] = ()
  without_masks: tuple[str, ...] = ()
  # BTAD has masks that mark nothing, and all figures of it are by these.
  as_published = True

  def __init_subclass__(cls, **kwargs: Any):
    cls.BUILDER_CONFIGS = [
      tfds.core.BuilderConfig(name=category, description=f'{cls.title}, category {category}.')
      for category in cls.counts
    ]
    super().__init_subclass__(**kwargs)

  def __init__(self, *, root: str = '', **kwargs: Any):
    self._root = root
    super().__init__(**kwargs)

  @classmethod
  def present(cls, root: pathlib.Path) -> list[str]:
    """Returns the categories that an archive, which is read through, or a folder holds.

    Raises:
      UserError: the archive is damaged.
    """
    if root.is_file() and cls.parts:
      held = archive.categories(root, cls.parts[0])
    else:
      held = set(layout.folders(cls.categories_folder(root)))
    return [category for category in cls.counts if category in held]

  @classmethod
  def categories_folder(cls, root: pathlib.Path) -> pathlib.Path:
    """Returns the folder that holds the categories', mostly the root itself.

    Raises:
      UserError: where there is none.
    """
    return root

  @abc.abstractmethod
  def scan(self, root: pathlib.Path) -> layout.Layout:
    """Lists the category's files by their names, below the folder that holds what is published."""

  def labelled(self, found: layout.Layout) -> layout.Layout:
    """Returns the layout with labels that only the masks' content tells, if there are any."""
    return found

  def wanted(self) -> Mapping[str, Collection[str]]:
    """Returns the parts of the archive that are extracted, see `archive.extract`."""
    return {self.builder_config_name: self.parts}

  def category_folder(self, root: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the category.

    Raises:
      UserError: where there is none.
    """
    folder: pathlib.Path = self.categories_folder(root) / self.builder_config_name
    if not folder.is_dir():
      raise UserError(
        f'{folder.parent}: has no folder {self.builder_config_name!r}; '
        'set config.data.root to the folder that holds the categories'
      )
    return folder

  def _info(self) -> tfds.core.DatasetInfo:
    return self._dataset_info(
      description=self.description,
      homepage=self.homepage,
      citation=self.citation,
      license=self.license,
    )

  def is_given(self) -> bool:
    """Returns whether there is a root; without one, what was prepared of it is read."""
    return bool(self._root)

  @property
  def source(self) -> str:
    """Returns the archive or folder."""
    return working_copy.shown(self._existing_root().absolute())

  def found_now(self) -> layout.Layout | None:
    """Returns what the extracted folder holds; None of an archive, or without root."""
    root = self._root and self._place()
    return self._scan_all(root) if root and root.is_dir() else None

  def _place(self) -> pathlib.Path:
    """Returns the path of root, where a mirror has the category's files alone."""
    own = self.builder_config_name
    return mirror.place(self._root, mirror.KEY, () if own == WHOLE else self.counts.keys() - {own})

  def _scan_all(self, root: pathlib.Path) -> layout.Layout:
    """Lists the files, and all below the category's folder that are no part of the data set."""
    found = self.scan(root)
    if found.findings:
      return found
    folder = root if self.builder_config_name == WHOLE else self.category_folder(root)
    items = (*found.train, *found.validation, *found.test)
    used = {path for item in items for path in (item.image, *item.masks)}
    return dataclasses.replace(found, findings=report.findings(passed_over.unused(folder, used)))

  def fingerprint(self) -> str:
    """Returns a digest of the archive's content, or of the extracted files'."""
    root = self._existing_root()
    if found := self.found_now():
      return layout.fingerprint(found)
    return digest_cache.digest_files([root])[0]

  def _existing_root(self) -> pathlib.Path:
    source = 'the archive or to the folder' if self.parts else 'the folder'
    if not self._root:
      raise UserError(
        f'{self.title} {self.builder_config_name} is not prepared yet: download it from '
        f'{self.homepage} and set config.data.root to {source} it is extracted to'
      )
    root = self._place()
    if not root.exists():
      raise UserError(
        f'{root}: does not exist; set config.data.root to {source} that {self.title} '
        f'({self.homepage}) is extracted to'
      )
    if root.is_file() and not self.parts:
      raise UserError(
        f'{root}: is a file; extract it and set config.data.root to the folder that it contains'
      )
    return root

  def _split_generators(self, dl_manager: Any) -> Mapping[str, Iterable[Any]]:
    del dl_manager  # nothing is downloaded: the licences ask for consent, or a registration
    root = self._existing_root()
    if root.is_file():
      archive.extract(root, self.wanted(), self._extracted, unread=self.unread)
      root = self._extracted
    found = self.labelled(self.found_now() or self._scan_all(root))
    if not found.train:
      raise UserError(
        f'{root}: has no normal training images of {self.title} {self.builder_config_name}; '
        'set config.data.root to the official download'
      )
    splits = self._layout_splits(found)
    self._record.odd += [('not_official', case) for case in self._differences(found)]
    return splits

  @property
  def _extracted(self) -> pathlib.Path:
    """Inside the folder that is being prepared, so that it shares its fate."""
    return pathlib.Path(self.data_dir) / 'extracted'

  def _generate_splits(self, dl_manager: Any, download_config: Any) -> list[tfds.core.SplitInfo]:
    splits = super()._generate_splits(dl_manager, download_config)
    shutil.rmtree(self._extracted, ignore_errors=True)
    return splits

  def _differences(self, found: layout.Layout) -> Iterator[Case]:
    """Yields what differs from the official data."""
    defective = [item for item in found.test if item.defect != layout.GOOD]
    good = len(found.test) - len(defective)
    counts = Counts(len(found.train), good, len(defective), len(found.validation))
    official = self.counts[self.builder_config_name]
    if not official.agree(counts):
      yield Case(f'found {counts} images; the official data has {official}')
    unmarked = sum(not item.masks for item in defective)
    if unmarked and self.builder_config_name not in self.without_masks:
      yield Case(f'{unmarked} defective test images have no mask')
