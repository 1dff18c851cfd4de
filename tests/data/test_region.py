"""Regions of interest: where they are looked for, how they are read, and what is refused."""

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.configs import default
from patch_svdd_jax.data import arrays, file_search, image_stream, region
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import data_record

SIZE = (40, 60)
INSIDE = np.zeros(SIZE, bool)
INSIDE[10:30, 5:20] = True


def save(path, pixels, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path, **options)
  return path


def save_region(path, inside=INSIDE):
  return save(path, np.where(inside, 255, 0).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
  """Two training images and a test image, in MVTec AD's layout."""
  generator = np.random.default_rng(0)
  for name in ('train/good/1.png', 'train/good/2.png', 'test/scratch/3.png'):
    save(tmp_path / 'set' / name, generator.integers(0, 256, (*SIZE, 3), np.uint8))
  return tmp_path / 'set'


def config_of(folder, where='region.png', **settings):
  config = default.get_config().data
  config.update(name='folder', category='', root=str(folder), image_size=(20, 30), region=where)
  config.update(prepared=str(folder.parent / 'prepared'))
  config.update(settings)
  return config


def half(inside=INSIDE):
  """A region at half its size, by nearest neighbour."""
  picture = Image.fromarray(inside.astype(np.uint8)).resize((30, 20), Image.Resampling.NEAREST)
  return np.asarray(picture) > 0


def refusal(folder, where='region.png', **settings):
  with pytest.raises(UserError) as caught:
    data.load(config_of(folder, where, **settings))
  assert '\n' not in str(caught.value)
  return str(caught.value)


def test_without_a_region_there_is_none(folder):
  dataset = data.load(config_of(folder, ''))
  assert dataset.train.regions is None
  assert dataset.test.regions is None


def test_a_fixed_region_lies_beside_the_images(folder):
  save_region(folder / 'region.png')
  dataset = data.load(config_of(folder, held_out=0.5))
  for split in (dataset.train, dataset.held_out, dataset.test):
    np.testing.assert_array_equal(split.fixed_region, half())
  assert len(dataset.train) + len(dataset.held_out) == 2
  found = dataset.report.cases('region')
  assert [case.name for case in found] == ['region.png']
  assert not dataset.report.of_weight('wrong')
  # Nothing else changes with it.
  plain = data.load(config_of(folder, '', held_out=0.5))
  assert plain.train.digests == dataset.train.digests


def test_a_region_may_lie_elsewhere_and_in_the_root_of_a_category(folder, tmp_path):
  path = save_region(tmp_path / 'mine.png')
  dataset = data.load(config_of(folder, str(path)))
  np.testing.assert_array_equal(dataset.train.fixed_region, half())
  save_region(tmp_path / 'region.png', ~INSIDE)
  dataset = data.load(config_of(tmp_path, category='set'))
  np.testing.assert_array_equal(dataset.train.fixed_region, half(~INSIDE))
  save_region(folder / 'region.png')
  dataset = data.load(config_of(tmp_path, category='set'))
  np.testing.assert_array_equal(dataset.train.fixed_region, half())


def test_white_is_inside_whatever_the_picture_is(folder):
  grey = np.where(INSIDE, 128, 127).astype(np.uint8)
  transparent = np.full((*SIZE, 4), 255, np.uint8)
  transparent[..., 3] = np.where(INSIDE, 255, 0)
  for pixels in (grey, np.repeat(grey[..., None], 3, axis=2), transparent, INSIDE):
    save(folder / 'region.png', pixels)
    np.testing.assert_array_equal(data.load(config_of(folder)).train.fixed_region, half())


def test_each_image_may_have_a_region_of_its_own(folder):
  save_region(folder / 'roi/train/good/1.png')
  save_region(folder / 'roi/2.png', ~INSIDE)
  save_region(folder / 'roi/test/scratch/3.png', np.ones(SIZE, bool))
  dataset = data.load(config_of(folder, 'roi'))
  assert dataset.train.names == ('train/good/1.png', 'train/good/2.png')
  np.testing.assert_array_equal(dataset.train.regions, [half(), half(~INSIDE)])
  assert dataset.test.regions.all()
  assert dataset.train.fixed_region is None
  assert not dataset.report.of_weight('wrong')


def test_a_region_lies_on_the_upright_picture(folder):
  sideways = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6
  save(folder / 'train/good/1.jpg', sideways, exif=exif)
  for name in ('train/good/1.png', 'train/good/2.png'):
    (folder / name).unlink()
  save_region(folder / 'region.png')
  np.testing.assert_array_equal(data.load(config_of(folder)).train.fixed_region, half())


def test_a_flat_folder_and_separate_ones_pass_regions_over(folder, tmp_path):
  pixels = np.zeros((*SIZE, 3), np.uint8)
  for name in ('flat/1.png', 'apart/normal/1.png', 'apart/abnormal/2.png', 'apart/normal/3.png'):
    save(tmp_path / name, pixels)
  for name in ('flat', 'apart'):
    save_region(tmp_path / name / 'region.png')
    save_region(tmp_path / name / 'roi/1.png')
    dataset = data.load(config_of(tmp_path / name, ''))
    assert not any('region' in each or 'roi' in each for each in dataset.train.names)
    assert {case.name for case in dataset.report.cases('region')} == {'region.png', 'roi/1.png'}
  found = file_search.find([tmp_path / 'flat'])
  assert [source.name for source in found.sources] == ['1.png']
  assert 'regions of interest' in found.passed_over
  assert len(file_search.find([tmp_path / 'flat/region.png']).sources) == 1
  message = refusal(tmp_path / 'flat', '1.png')
  assert message.endswith('1.png: is the region, and read as an image: call it region.png')


def test_what_is_no_region_is_refused_in_one_line(folder):
  assert 'region.png: no such file or folder; config.data.region names a' in refusal(folder)
  (folder / 'region.png').write_bytes(b'none')
  assert str(folder / 'region.png') in refusal(folder)
  save_region(folder / 'region.png', INSIDE.T)
  assert 'the region is 40 x 60 pixels, but the training images 60 x 40' in refusal(folder)
  save(folder / 'region.png', INSIDE.astype(np.uint8))
  assert 'the region is empty: it has no pixel that is brighter than half' in refusal(folder)
  thin = np.zeros(SIZE, bool)
  thin[0, 0] = True
  save_region(folder / 'region.png', thin)
  assert 'the region is empty: it has no pixel left at 20x30 pixels' in refusal(folder)
  assert 'looked for below config.data.root, which is empty' in refusal(
    folder, name='textures', category='brick', root=''
  )


def test_a_folder_that_lacks_a_region_or_has_one_for_several_is_refused(folder):
  save_region(folder / 'roi/1.png')
  message = refusal(folder, 'roi')
  assert 'has no region of 2 of 3 images (train/good/2.png, test/scratch/3.png)' in message
  assert 'that of train/good/2.png is train/good/2.png, or 2.png where no other' in message
  save_region(folder / 'roi/2.png')
  save(folder / 'test/scratch/1.png', np.zeros((*SIZE, 3), np.uint8))
  save_region(folder / 'roi/test/scratch/3.png')
  assert 'roi/1.png: may be the region of train/good/1.png, or of another' in refusal(folder, 'roi')
  save_region(folder / 'roi/test/scratch/1.png')
  assert 'roi/1.png: may be the region of train/good/1.png' in refusal(folder, 'roi')
  save_region(folder / 'roi/train/good/1.png', INSIDE.T)
  assert 'but its image train/good/1.png 60 x 40' in refusal(folder, 'roi')


def test_categories_have_their_own(folder, tmp_path):
  for name in ('train/good/1.png', 'train/good/2.png'):
    save(tmp_path / 'other' / name, np.zeros((*SIZE, 3), np.uint8))
  save_region(folder / 'region.png')
  save_region(tmp_path / 'other/region.png', ~INSIDE)
  dataset = data.load(config_of(tmp_path, category='multiclass'))
  for name, found in zip(dataset.train.names, dataset.train.regions, strict=True):
    np.testing.assert_array_equal(found, half(INSIDE if name.startswith('set/') else ~INSIDE))


def test_arrays_have_regions_that_are_arrays():
  images = [np.zeros((*SIZE, 3), np.uint8)] * 3
  config = config_of_arrays()
  dataset = arrays.dataset(images, config, INSIDE)
  np.testing.assert_array_equal(dataset.train.fixed_region, half())
  dataset = arrays.dataset(images, config, [INSIDE, ~INSIDE, INSIDE])
  np.testing.assert_array_equal(dataset.train.regions, [half(), half(~INSIDE), half()])


def config_of_arrays():
  config = default.get_config().data
  config.image_size = (20, 30)
  return config


@pytest.mark.parametrize(
  ('given', 'expected'),
  [
    (INSIDE.astype(np.uint8), 'region: give a numpy array bool'),
    (INSIDE.T, 'the region is 40 x 60 pixels, but the images are 60 x 40'),
    ([INSIDE] * 2, '2 regions for 3 images: give one for each'),
    ([INSIDE, INSIDE, INSIDE.T], 'region of image 2: the region is 40 x 60 pixels, but its image'),
    ([INSIDE, INSIDE, None], 'region of image 2: give a numpy array bool'),
    (np.zeros(SIZE, bool), 'region: the region is empty'),
    ('region.png', 'region is of type str'),
  ],
)
def test_arrays_that_are_no_regions_are_refused(given, expected):
  with pytest.raises(UserError, match=expected):
    arrays.dataset([np.zeros((*SIZE, 3), np.uint8)] * 3, config_of_arrays(), given)


def dataset_of(regions):
  return arrays.dataset([np.zeros((*SIZE, 3), np.uint8)] * 3, config_of_arrays(), regions)


def contents(regions):
  return data_record.contents(dataset_of(regions), data_record.TRAINING)


@pytest.mark.parametrize(
  ('before', 'after', 'expected'),
  [
    (None, None, None),
    (INSIDE, INSIDE, None),
    (INSIDE, ~INSIDE, '1 replaced: region of all images'),
    (None, INSIDE, '1 added: region of all images'),
    (INSIDE, None, '1 removed: region of all images'),
    ([INSIDE] * 3, [INSIDE, ~INSIDE, ~INSIDE], '2 replaced: region of image 1, ...'),
  ],
)
def test_another_region_is_other_data(before, after, expected):
  assert data_record.difference(contents(before), contents(after)) == expected


def test_an_experiment_tells_regions_apart(folder):
  keys = [data_record.key_of(config_of(folder, where)) for where in ('', 'region.png', 'roi')]
  keys.append(data_record.key_of(config_of(folder, 'roi', region_share=0.25)))
  assert len({*keys}) == 4
  assert 'region' not in keys[0]


def test_names_of_lists_that_lead_elsewhere_stay_in_the_folder(tmp_path):
  save_region(tmp_path / 'roi/a/1.png')
  found = region.files_of(tmp_path / 'roi', ['/a/1.png'])
  assert found == {'/a/1.png': tmp_path / 'roi/a/1.png'}


@pytest.mark.parametrize('where', ['region.png', 'roi'])
def test_loaded_images_are_lit_and_described_as_those_that_come_later(folder, where):
  save_region(folder / 'region.png')
  for name in ('train/good/1.png', 'train/good/2.png', 'test/scratch/3.png'):
    save_region(folder / 'roi' / name)
  config = config_of(folder, where, light='standardised')
  dataset = data.load(config)
  for split in (dataset.train, dataset.test):
    for index, name in enumerate(split.names):
      fixed = half() if where == 'region.png' else None
      later = image_stream.read(file_search.Source(name, folder / name), config, region=fixed)
      np.testing.assert_array_equal(split.images[index], later.images[0])
      np.testing.assert_array_equal(split.appearance[index], later.appearance[0])
