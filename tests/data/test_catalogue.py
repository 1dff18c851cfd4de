import pathlib
import tarfile

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.data import archive
from patch_svdd_jax.data.catalogue import BUILDERS
from patch_svdd_jax.data.published import Counts
from patch_svdd_jax.errors import UserError
from tests.data import downloads

IN_TAR = sorted(name for name, builder in BUILDERS.items() if builder.parts)


@pytest.fixture
def download(tmp_path):
  return lambda name: downloads.WRITERS[name](tmp_path / 'official')


@pytest.fixture
def load(settings):
  def load(name, download, root=None, **changes):
    root = str(download.root if root is None else root)
    return data.load(settings(name=name, category=download.category, root=root, **changes))

  return load


def pack(root: pathlib.Path) -> pathlib.Path:
  path = root.parent / 'official.tar.gz'
  with tarfile.open(path, 'w:gz') as tar:
    tar.add(root, 'some/folder')
  return path


def assert_found(loaded, download):
  assert loaded.train.names == tuple(download.train)
  assert set(loaded.train.defects) == {'good'}
  assert sorted(loaded.test.names) == sorted(download.test)
  for i, name in enumerate(loaded.test.names):
    defect, mask = download.test[name]
    assert loaded.test.defects[i] == defect
    assert loaded.test.has_mask[i] == (mask is not None)
    np.testing.assert_array_equal(loaded.test.masks[i], False if mask is None else mask)


def test_there_is_an_imitation_of_each():
  assert downloads.WRITERS.keys() == BUILDERS.keys()


@pytest.mark.parametrize('name', BUILDERS)
def test_the_official_folder(name, download, load):
  made = download(name)
  loaded = load(name, made)
  assert loaded.name == f'{name}/{made.category}'
  assert_found(loaded, made)
  assert len(loaded.held_out) == 0
  image = np.asarray(Image.open(made.folder / made.train[1]))
  np.testing.assert_array_equal(loaded.train.images[1], image)
  # The imitation is smaller than the official data, if its size is known, and complete otherwise.
  warnings = loaded.report.lines()
  assert len(warnings) == any(n is not None for n in BUILDERS[name].counts[made.category][:3])
  for warning in warnings:
    assert 'training' in warning
    assert warning.endswith('results will not compare')
  again = load(name, made, root='')
  assert again.test.names == loaded.test.names
  assert again.report.lines() == warnings


@pytest.mark.parametrize('name', IN_TAR)
def test_the_official_archive(name, download, load, tmp_path):
  made = download(name)
  assert_found(load(name, made, root=pack(made.root)), made)
  left = {path.suffix.lower() for path in (tmp_path / 'prepared').rglob('*') if path.is_file()}
  assert not left & {'.png', '.jpg', '.csv'}, 'extracted files were left behind'


def test_an_archive_of_another_kind_is_to_be_extracted(download, load):
  made = download('btad')
  with pytest.raises(UserError, match=r'official\.tar\.gz: is a file; extract it'):
    load('btad', made, root=pack(made.root))


def test_only_what_is_read_is_extracted(download, tmp_path):
  made = download('mvtec_3d')
  archive.extract(
    pack(made.root), {'tire': ('train', 'test')}, tmp_path / 'here', unread=('xyz', 'gt')
  )
  found = {str(p.relative_to(tmp_path / 'here')) for p in (tmp_path / 'here').rglob('*.*')}
  assert found == {f'tire/{name}' for name in (*made.train, *made.test)}


@pytest.mark.parametrize('name', ['mvtec_loco', 'mvtec_ad_2', 'mvtec_3d', 'bmad', 'kaputt'])
def test_validation_images_are_those_held_out(name, download, load):
  made = download(name)
  loaded = load(name, made, held_out=0.1)
  assert loaded.held_out.names == tuple(made.validation)
  assert loaded.train.names == tuple(made.train)


@pytest.mark.parametrize(
  ('name', 'categories', 'total'),
  [
    ('mvtec_loco', 5, Counts(1778, 575, 993, 305)),
    ('mvtec_ad_2', 8, Counts(2528, 379, 705, 302)),
    ('mvtec_3d', 10, Counts(2656, 249, 948, 294)),
    ('visa', 12, Counts(8659, 962, 1200)),
    ('btad', 3, Counts(1799, 451, 290)),
    ('mpdd', 6, Counts(888, 176, 282)),
    ('kolektor_sdd2', 1, Counts(2331 - 246, 1004 - 110, 110)),
    ('vad', 1, Counts(2000, 1000, 1000)),
  ],
)
def test_official_counts_add_up(name, categories, total):
  """To what the papers and pages report of the whole data sets."""
  counts = list(BUILDERS[name].counts.values())
  assert len(counts) == len(BUILDERS[name].BUILDER_CONFIGS) == categories
  assert Counts(*np.sum(counts, axis=0)) == total


def test_counts_that_are_not_known_agree_with_any():
  assert Counts(None, None, 3).agree(Counts(7, 8, 3))
  assert not Counts(None, None, 3).agree(Counts(7, 8, 4))
  assert not Counts(1, 2, 3, 4).agree(Counts(1, 2, 3))
  assert str(Counts(None, 2, 3, 4)) == '? training, 2 good test, 3 defective test, 4 validation'


@pytest.mark.parametrize('name', BUILDERS)
def test_the_source_is_named(name, tmp_path):
  builder = BUILDERS[name]
  info = builder(config=next(iter(builder.counts)), data_dir=tmp_path).info
  assert info.homepage.startswith('https://')
  assert info.citation.startswith('@')
  assert info.redistribution_info.license


def test_masks_that_are_missing_are_said(download, load):
  made = download('mvtec_3d')
  (made.folder / 'test/hole/gt/000.png').unlink()
  loaded = load('mvtec_3d', made)
  assert loaded.test.has_mask.tolist() == [True, False]
  assert '1 defective test images have no mask' in loaded.report.lines()[0]


def test_a_mask_that_tells_the_label_is_needed(download, load):
  made = download('kolektor_sdd2')
  (made.root / 'train/10001_GT.png').unlink()
  with pytest.raises(UserError, match=r'10001_GT\.png: cannot be read'):
    load('kolektor_sdd2', made)


def test_a_split_of_visa_that_does_not_fit(download, load):
  made = download('visa')
  split = made.root / 'split_csv/1cls.csv'
  (made.folder / 'Data/Images/Normal/100.JPG').unlink()
  with pytest.raises(UserError, match=r'100\.JPG: cannot be read'):
    load('visa', made)
  split.write_text('object,image\n')
  with pytest.raises(UserError, match=r'1cls\.csv: has not the columns'):
    load('visa', made)
  split.unlink()
  with pytest.raises(UserError, match=r'1cls\.csv: cannot be read.*comes with VisA'):
    load('visa', made)


def test_tiles_of_another_name(download, load):
  made = download('magnetic_tile')
  made.image('MT_Free/Imgs/tile.jpg')
  with pytest.raises(UserError, match=r'tile\.jpg: is not named exp'):
    load('magnetic_tile', made)


def test_categories_below_a_folder_of_their_own(download):
  made = download('real_iad')
  assert BUILDERS['real_iad'].present(made.root) == ['pcb']
  (made.root / 'realiad_1024').rename(made.root / 'realiad_256')
  assert BUILDERS['real_iad'].present(made.root) == ['pcb']
  with pytest.raises(UserError, match=r'has no folder realiad_1024.*holds one of them'):
    BUILDERS['real_iad'].present(made.folder)


def test_a_split_of_real_iad_that_does_not_fit(download, load):
  made = download('real_iad')
  entry = downloads.real_iad_entry
  normal = [entry(name) for name in made.train]
  odd = [entry(made.train[0], 'XX')]  # a type that has no name
  path = downloads.write_real_iad(made.root, {'train': [*normal, *odd], 'test': odd})
  loaded = load('real_iad', made)
  assert len(loaded.train) == len(normal)
  assert loaded.test.defects == ('XX',)
  assert '1 defective test images have no mask' in loaded.report.lines()[0]
  downloads.write_real_iad(made.root, {'train': normal, 'test': [entry('gone.jpg')]})
  with pytest.raises(UserError, match=r'gone\.jpg: cannot be read'):
    load('real_iad', made)
  for wrong in ({'train': normal}, {'train': [{}], 'test': []}, [], {'train': 3, 'test': normal}):
    downloads.write_real_iad(made.root, wrong)
    with pytest.raises(UserError, match=r'pcb\.json: does not list train and test'):
      load('real_iad', made)
  path.write_text('{')
  with pytest.raises(UserError, match=r'pcb\.json: does not list'):
    load('real_iad', made)
  path.unlink()
  with pytest.raises(UserError, match=r'pcb\.json: cannot be read.*comes with Real-IAD'):
    load('real_iad', made)


def test_splits_of_real_iad_in_one_folder_less(download, load):
  made = download('real_iad')
  place = made.root / 'realiad_jsons'
  (place / 'realiad_jsons/pcb.json').rename(place / 'pcb.json')
  assert_found(load('real_iad', made), made)


@pytest.mark.parametrize(
  ('category', 'train', 'image', 'mask', 'validation'),
  [
    ('Histopathology', 'train/good', 'test/{}', '', 'valid/{}'),
    ('Chest', 'Chest-RSNA/train/good', 'Chest-RSNA/test/{}', '', 'Chest-RSNA/val/{}'),
    (
      'Liver',
      'Train/a/train/good',
      'Train/a/test/img/{}',
      'Train/a/test/label',
      'Train/a/valid/{}',
    ),
    ('Retina_RESC', 'Train/train/good', 'Test/test/{}', 'Test/test_label', 'Val/val/{}'),
  ],
)
def test_each_archive_of_bmad(category, train, image, mask, validation, tmp_path, load):
  made = downloads.Download(tmp_path / 'official', category)
  made.train = made.normal(train)
  made.validation = made.normal(validation.format('good'))
  made.image(validation.format('Ungood') + '/0.png')
  made.good(image.format('good') + '/1.png')
  made.bad(image.format('ungood') + '/1.png', 'Ungood', *([f'{mask}/ungood/1.png'] if mask else []))
  loaded = load('bmad', made, held_out=0.1)
  assert_found(loaded, made)
  assert loaded.held_out.names == tuple(made.validation)
  assert not any('no mask' in line for line in loaded.report.lines())


def test_kaputt_extracted_without_folders_of_the_archives(download, load):
  made = download('kaputt')
  assert len(BUILDERS['kaputt'].present(made.root)) == 10
  assert BUILDERS['kaputt'].present(made.folder) == []
  (made.root / 'query-crop/data').rename(made.root / 'data')
  (made.root / 'query-crop').rmdir()
  for path in (made.root / 'datasets').iterdir():
    path.rename(made.root / path.name)
  (made.root / 'datasets').rmdir()
  made.place = '.'
  assert_found(load('kaputt', made), made)


def test_tables_of_kaputt_that_do_not_fit(download, load):
  made = download('kaputt')
  path = downloads.write_kaputt(made.root, 'test', [('gone.jpg', True, None, 'paper')])
  with pytest.raises(UserError, match=r'gone\.jpg: cannot be read'):
    load('kaputt', made)
  downloads.write_kaputt(made.root, 'test', [('gone.jpg',)])
  with pytest.raises(UserError, match=r'query-test\.parquet: has not the columns'):
    load('kaputt', made)
  path.write_bytes(b'PAR1')
  with pytest.raises(UserError, match=r'query-test\.parquet: is damaged'):
    load('kaputt', made)
  path.unlink()
  with pytest.raises(UserError, match=r'query-test\.parquet: cannot be read.*comes with Kaputt'):
    load('kaputt', made)


def test_the_supervised_part_of_vad_is_not_read(download, load):
  loaded = load('vad', download('vad'))
  assert set(loaded.train.defects) == {'good'}
  [unused] = [each for each in loaded.report.findings if each.kind == 'unused']
  assert [case.name for case in unused.cases] == ['low_shot_train.json', 'train/bad/1.png']


@pytest.mark.parametrize('name', ['kolektor_sdd2', 'magnetic_tile', 'mvtec_loco', 'vad', 'bmad'])
def test_a_folder_that_holds_something_else(name, download, load, tmp_path):
  made = download(name)
  (tmp_path / 'empty' / made.category).mkdir(parents=True)
  with pytest.raises(UserError, match='has no normal training images'):
    load(name, made, root=tmp_path / 'empty')


def test_names_that_mean_nothing(settings):
  with pytest.raises(UserError, match=r"name='vissa': no such .* choose of mvtec,.*, textures"):
    data.load(settings(name='vissa'))
  with pytest.raises(UserError, match=r"category='all': no such category; choose of candle,"):
    data.load(settings(name='visa', category='all'))
