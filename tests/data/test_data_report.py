"""Labels, folders and files: what is not read is said, what cannot be used is named, at once."""

import io
import json
import os

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax import data
from patch_svdd_jax.data import folder_names, layout, passed_over, report
from patch_svdd_jax.data.report import Case, DataReport, Finding
from tests.support.categories import pixels, save


@pytest.fixture
def root(tmp_path, make_category):
  return make_category(tmp_path / 'nuts')


@pytest.fixture
def load(root, settings):
  return lambda: data.load(settings(root=str(root)))


def kinds(found):
  return {finding.kind for finding in found.findings}


def cases(found, kind):
  return [case for each in found.findings if each.kind == kind for case in each.cases]


# Labels.

GOOD = (
  *(
    'good',
    'Good',
    'GOOD',
    'gOOd',
    'good ',
    ' good',
    'good_',
    'good.',
    'go od',
    '\N{NO-BREAK SPACE}good',
  ),
  *('\N{FULLWIDTH LATIN SMALL LETTER G}ood', 'go\N{ZERO WIDTH SPACE}od', 'ok', 'OK', 'Ok ', 'okay'),
  *('normal', 'Normal', 'NOMINAL', 'defect_free', 'Defect-Free', 'no defects', 'non-defective'),
  *('anomaly free', 'pass', 'Passed'),
)


@pytest.mark.parametrize('name', GOOD)
def test_names_that_mean_good_are_no_type_of_defect(root, load, name):
  (root / 'test/good').rename(root / 'test' / name)
  (root / 'train/good').rename(root / 'train' / name)
  loaded = load()
  assert len(loaded.train) == 3
  assert sorted(loaded.test.defects) == ['good', 'good', 'hole', 'scratch', 'scratch']
  assert loaded.test.labels.sum() == 3
  assert not loaded.report.of_weight('wrong')
  assert ('good_by_another_name' in kinds(loaded.report)) == (name != 'good')


def test_several_names_that_mean_good_are_read_together(root, load):
  save(root / 'test/OK/9.png', pixels(90))
  save(root / 'train/Good/9.png', pixels(91))
  loaded = load()
  assert loaded.train.names[0] == 'train/Good/9.png'
  assert len(loaded.train) == 4
  assert loaded.test.defects.count('good') == 3
  noted = cases(loaded.report, 'good_by_another_name')
  assert noted == [Case('train/Good'), Case('test/OK')]


@pytest.mark.parametrize('name', ['good2', 'good_parts', 'Goods', 'ok_1', 'normal images', 'ok2'])
def test_names_that_resemble_good_are_said(root, load, name):
  (root / 'test/good').rename(root / 'test' / name)
  loaded = load()
  assert cases(loaded.report, 'resembles_good') == [Case(f'test/{name}')]
  assert any('resembles good' in line for line in loaded.report.lines())


@pytest.mark.parametrize(
  'name', ['hole', 'okra', 'bad', 'ng', 'broken', 'abnormal', 'not_good', 'ko']
)
def test_other_names_are_types_of_defect(name):
  assert not folder_names.means_good(name)
  assert not folder_names.resembles_good(name)


@pytest.mark.parametrize(
  ('place', 'name'),
  [
    *(('train', 'Train'), ('train', 'TRAIN'), ('train', 'train '), ('test', 'Test')),
    *(('test', 'TEST_'), ('ground_truth', 'GROUND_TRUTH'), ('ground_truth', 'GroundTruth')),
  ],
)
def test_splits_in_another_case_are_read(root, load, place, name):
  (root / place).rename(root / name)
  loaded = load()
  assert (len(loaded.train), len(loaded.test)) == (3, 5)
  assert loaded.test.has_mask.sum() == 4


def test_every_category_is_found_by_what_its_folders_mean(tmp_path, make_category, settings):
  for name, good in (('a', 'good'), ('b', 'Good'), ('c', 'OK')):
    make_category(tmp_path / 'all' / name)
    (tmp_path / 'all' / name / 'train/good').rename(tmp_path / 'all' / name / 'train' / good)
  loaded = data.load(settings(root=str(tmp_path / 'all'), category='multiclass'))
  assert loaded.categories == ('a', 'b', 'c')
  assert {group.folder for group in loaded.report.groups} >= {'a/train/good', 'c/train/OK'}


# Files that are not read.


def put(path, content=b'x'):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


def encoded(kind):
  content = io.BytesIO()
  Image.new('RGB', (4, 4)).save(content, kind)
  return content.getvalue()


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    *((f'test/hole/1{suffix}', 'format_not_read') for suffix in passed_over.PICTURES),
    *((f'train/good/1{s}', 'format_not_read') for s in ('.heic', '.SVG', '.JXL', '.jxr', '.heic')),
    ('test/1.png', 'wrong_level'),
    ('train/1.JPG', 'wrong_level'),
    ('1.tif', 'wrong_level'),
    ('1.heic', 'wrong_level'),
    ('test/hole/more/1.png', 'too_deep'),
    ('test/hole/more/1.heic', 'too_deep'),
    ('train/good/a/b/c/1.bmp', 'too_deep'),
    ('train/bad/1.png', 'not_trained_on'),
    ('train/masks/1.png', 'masks_elsewhere'),
    ('test/masks/1.png', 'masks_elsewhere'),
    ('test/Ground-Truth/hole/000.png', 'masks_elsewhere'),
    ('validation/good/1.png', 'folder_beside'),
    ('testing/hole/1.png', 'folder_beside'),
    ('train2/good/1.png', 'folder_beside'),
    ('abnormal/1.png', 'folder_beside'),
    ('test/hole/.hidden.png', 'hidden'),
    ('test/.ipynb_checkpoints/1.png', 'hidden'),
    ('train/good/._000.png', 'hidden'),
    ('train/good/Thumbs.db', 'hidden'),
    ('train/good/notes.txt', 'other_files'),
    ('test/hole/film.mp4', 'other_files'),
    ('license.txt', 'other_files'),
    ('sources/1.blend', 'other_files'),
  ],
)
def test_whatever_is_not_read_is_said(root, load, name, kind):
  before = load()
  put(root / name)
  # Though nothing is prepared anew: no file that is read has changed.
  loaded = load()
  assert kinds(loaded.report) - kinds(before.report) == {kind}
  [finding] = [each for each in loaded.report.findings if each.kind == kind]
  assert finding.number == 1
  [case] = finding.cases
  assert name.startswith(case.name)
  assert (finding.text() in loaded.report.lines()) == (finding.weight != 'note')
  assert 'not read: 1' in loaded.report.summary()
  np.testing.assert_array_equal(loaded.test.images, before.test.images)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG', 'GIF', 'WEBP', 'TIFF', 'JPEG2000', 'PPM', 'AVIF'])
@pytest.mark.parametrize('name', ['picture', 'picture.dat', 'picture.png_old'])
def test_images_under_other_names_are_known_by_their_content(root, kind, name):
  try:
    put(root / 'test/hole' / name, encoded(kind))
  except (KeyError, OSError):
    pytest.skip(f'Pillow writes no {kind} here')
  assert 'format_not_read' in kinds(layout.scan(root))


def test_an_empty_folder_of_test_images_is_said(root, load):
  (root / 'test/crack').mkdir()
  assert cases(load().report, 'no_images') == [Case('test/crack')]


def test_files_are_counted_by_folder_and_suffix(root):
  for index in range(7):
    put(root / f'test/hole/{index}.heic')
    put(root / f'test/scratch/{index}.svg')
  put(root / 'test/hole/x.svg')
  [finding] = layout.scan(root).findings
  assert [(case.name, case.number) for case in finding.cases] == [
    ('test/hole', 7),
    ('test/hole/x.svg', 1),
    ('test/scratch', 7),
  ]
  assert finding.text().startswith(
    'images of formats that are not read, left out: 15 (7 x test/hole (.heic, such as '
    '0.heic), test/hole/x.svg, 7 x test/scratch'
  )


def test_every_file_is_read_or_said(root):
  """By construction: of a tree of files of all kinds at all levels none is missing."""
  rng = np.random.default_rng(0)
  places = [
    '',
    'train',
    'train/good',
    'train/x',
    'test',
    'test/hole',
    'test/hole/a/b',
    'other/deep',
  ]
  places += ['ground_truth', 'ground_truth/hole', 'ground_truth/hole/000', 'masks', 'test/.h']
  suffixes = ['.png', '.heic', '.txt', '.npy', '', '.json', '.jpeg']
  for index in range(300):
    put(root / rng.choice(places) / f'f{index}{rng.choice(suffixes)}')
  found = layout.scan(root)
  used = {path for item in (*found.train, *found.test) for path in (item.image, *item.masks)}
  said = [case for each in found.findings for case in each.cases if each.kind in report.PASSED_OVER]
  whole = [root / case.name for case in said if (root / case.name).is_dir() and case.number == 1]
  inside = {path for folder in whole for path in folder.rglob('*') if path.is_file()}
  there = {path for path in root.rglob('*') if path.is_file()}
  counted = sum(case.number for case in said) - len(whole)
  assert counted == len(there - used - inside)


# Links.


def test_linked_folders_are_followed_as_far_as_the_layout_goes(root, load, tmp_path):
  expected = load()
  for place in ('train', 'test/scratch', 'ground_truth/scratch', 'test/good'):
    moved = tmp_path / 'elsewhere' / place
    moved.parent.mkdir(parents=True, exist_ok=True)
    (root / place).rename(moved)
    (root / place).symlink_to(moved)
  put(tmp_path / 'elsewhere/test/scratch/1.heic')
  loaded = load()
  assert loaded.test.names == expected.test.names
  np.testing.assert_array_equal(loaded.test.masks, expected.test.masks)
  assert cases(loaded.report, 'format_not_read') == [Case('test/scratch/1.heic')]


def test_links_that_are_not_followed_are_said(root, tmp_path):
  save(tmp_path / 'more/1.png', pixels(1))
  (root / 'test/hole/more').symlink_to(tmp_path / 'more')
  (root / 'train/good/circle').symlink_to(root)
  (root / 'test/scratch/gone.png').symlink_to('nowhere.png')
  (root / 'test/scratch/gone').symlink_to('nowhere')
  (root / 'circle').symlink_to('circle')
  os.mkfifo(root / 'test/scratch/pipe.png')
  found = layout.scan(root)
  assert {case.name for case in cases(found, 'linked_folder')} == {
    'test/hole/more',
    'train/good/circle',
  }
  assert sum(case.number for case in cases(found, 'no_file')) == 4


def test_a_linked_file_is_an_image(root, load, tmp_path):
  (root / 'test/hole/000.png').rename(tmp_path / 'real.png')
  (root / 'test/hole/000.png').symlink_to(tmp_path / 'real.png')
  assert 'test/hole/000.png' in load().test.names
  assert not load().report.of_weight('wrong', 'mind')


# Files that cannot be used.


def damage(path):
  path.write_bytes(path.read_bytes()[:60])


def test_all_bad_training_images_are_named_at_once(root, load):
  bad = [root / 'train/good/000.png', root / 'train/good/002.png', root / 'test/hole/000.png']
  for path in bad:
    damage(path)
  put(root / 'train/good/3.png', b'')
  put(root / 'train/good/4.jpg', b'no image')
  with pytest.raises(report.UnusableError) as caught:
    load()
  assert str(caught.value).startswith(f'{root}: 4 training images that cannot be used: ')
  for path in (*bad, root / 'train/good/3.png', root / 'train/good/4.jpg'):
    assert f'{path.relative_to(root)}: ' in str(caught.value)
  assert '\n' not in str(caught.value)


def test_many_bad_images_are_counted_and_the_first_named(root, load):
  for index in range(30):
    put(root / f'train/good/x{index}.png', b'')
  with pytest.raises(report.UnusableError, match='30 training images') as caught:
    load()
  assert str(caught.value).count('is not a PNG') == report.SHOWN_UNUSABLE
  assert 'and 20 more (`patch-svdd data` names them all)' in str(caught.value)
  assert len(caught.value.report.cases('training_file_unusable')) == 30


def test_bad_test_images_are_left_out_and_said_each_time(root, load):
  damage(root / 'test/hole/000.png')
  damage(root / 'ground_truth/scratch/001_mask.png')
  for _ in range(2):
    loaded = load()
    assert loaded.test.names == ('test/good/000.png', 'test/good/001.png', 'test/scratch/000.png')
    assert len(loaded.train) == 3
    assert 'test images that cannot be used: 2 (' in loaded.report.lines()[0]


def test_no_test_image_can_be_used(root, load):
  for path in [*(root / 'test').rglob('*.png')]:
    damage(path)
  loaded = load()
  assert len(loaded.test) == 0
  assert len(loaded.report.cases('test_file_unusable')) == 5


# What the images are.


def test_formats_sizes_depths_and_orientation_are_counted(root, load):
  for suffix, mode in (('jpg', 'L'), ('bmp', 'RGB'), ('tif', 'I;16'), ('png', 'RGBA')):
    Image.new(mode, (20, 30)).save(root / f'test/hole/1.{suffix}')
  turned = Image.new('RGB', (20, 30))
  exif = turned.getexif()
  exif[0x0112] = 6
  turned.save(root / 'test/hole/2.jpg', exif=exif)
  found = load().report
  group = next(group for group in found.groups if group.folder == 'test/hole')
  assert group.formats == {
    'PNG 8-bit RGB': 1,
    'JPEG 8-bit grey': 1,
    'BMP 8-bit RGB': 1,
    'TIFF 16-bit grey': 1,
    'PNG 8-bit RGBA': 1,
    'JPEG 8-bit RGB': 1,
  }
  assert group.sizes == {'20 x 30': 5, '10 x 12': 1}
  assert (group.images, group.masks, group.turned) == (6, 0, 1)
  assert {case.name for case in cases(found, 'depth_differs')} == {'test/hole'}
  assert '1 turned by EXIF' in found.summary()


def test_formats_that_tell_good_from_bad_are_said(root, load):
  for path in [*(root / 'test/good').iterdir()]:
    Image.open(path).save(path.with_suffix('.jpg'))
    path.unlink()
  assert cases(load().report, 'format_tells') == [Case('good JPEG, defective PNG')]


def test_images_without_masks(root, load):
  assert cases(load().report, 'unmarked') == [Case('test/hole')]
  (root / 'ground_truth/scratch/001_mask.png').unlink()
  assert cases(load().report, 'some_unmarked') == [Case('test/scratch/001.png')]


def test_a_well_formed_folder_says_nothing(root, load):
  save(root / 'ground_truth/hole/000_mask.png', np.eye(12, 10, dtype=np.uint8) * 255)
  found = load().report
  assert not found.findings
  assert found.lines() == []
  assert found.summary() == (
    'train 3 (PNG 8-bit RGB, 10 x 12); test 5 (2 good, 3 defective, 3 with a mask, PNG 8-bit RGB, '
    '10 x 12)'
  )


# The report itself.


def test_a_report_goes_through_json(root, load):
  put(root / 'test/hole/not text \udcff.heic')
  found = load().report
  assert DataReport.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_short_form_is_short():
  kinds = [kind for kind in report.KINDS if report.KINDS[kind].weight != 'note']
  found = DataReport(of_files=tuple(Finding(kind, (Case('a'),)) for kind in kinds))
  assert len(found.lines()) == report.SHOWN_LINES
  assert found.lines()[-1].endswith('; `patch-svdd data` names them all')
  for kind in kinds:
    assert report.KINDS[kind].title in ' '.join(found.lines())


def test_every_kind_is_of_a_known_weight():
  assert {kind.weight for kind in report.KINDS.values()} == {'wrong', 'mind', 'note'}
  assert set(report.PASSED_OVER) <= set(report.KINDS)


def test_preparing_anew_is_not_needed_for_other_sizes(root, settings):
  first = data.load(settings(root=str(root))).report
  assert data.load(settings(root=str(root), image_size=(24, 20))).report == first
