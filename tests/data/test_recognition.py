"""Sets of one's own: each form is recognised by itself, and what could be two is refused."""

import dataclasses

import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.data import folder_names, recognition, sources
from patch_svdd_jax.errors import UserError
from tests.support.categories import pixels, save

# The folders of the tiny category in other forms: where each is moved.
SEPARATE = {
  'train/good': 'normal',
  'test/good': 'normal_test',
  'test/scratch': 'abnormal/scratch',
  'test/hole': 'abnormal/hole',
  'ground_truth': 'masks',
}


@pytest.fixture
def root(tmp_path, make_category):
  return make_category(tmp_path / 'nuts')


def move(root, places):
  for before, after in places.items():
    (root / after).parent.mkdir(parents=True, exist_ok=True)
    (root / before).rename(root / after)
  for name in ('train', 'test'):
    if (root / name).is_dir() and not any((root / name).iterdir()):
      (root / name).rmdir()


def put(root, *names):
  for index, name in enumerate(names):
    if name.endswith('/'):
      (root / name).mkdir(parents=True)
    elif name.endswith('.png'):
      save(root / name, pixels(7, index))
    else:
      (root / name).write_text('path,label\n')


def kinds(found):
  return {each.kind: {case.name for case in each.cases} for each in found.findings}


def same_images(loaded, expected):
  """By type of defect, whatever the order of types."""
  for split in ('train', 'test'):
    found, other = getattr(loaded, split), getattr(expected, split)
    for defect in {*other.defects}:
      mine, theirs = (
        each.take(np.flatnonzero([name == defect for name in each.defects]))
        for each in (found, other)
      )
      for field in ('images', 'masks', 'has_mask', 'labels', 'digests'):
        np.testing.assert_array_equal(getattr(mine, field), getattr(theirs, field))
    assert sorted(found.defects) == sorted(other.defects)


def test_the_layout_of_mvtec(root, settings):
  assert data.load(settings(root=str(root))).report.form == recognition.MVTEC


@pytest.mark.parametrize(
  'names',
  [
    {},
    {'normal': 'good', 'normal_test': 'good_test', 'abnormal': 'bad', 'masks': 'ground_truth'},
    {'normal': 'OK', 'normal_test': 'Test OK', 'abnormal': 'NG', 'masks': 'gt'},
  ],
)
def test_separate_folders_are_as_those_of_mvtec(root, settings, names):
  expected = data.load(settings(root=str(root)))
  places = {}
  for before, after in SEPARATE.items():
    top, _, rest = after.partition('/')
    places[before] = '/'.join(filter(None, [names.get(top, top), rest]))
  move(root, places)
  loaded = data.load(settings(root=str(root)))
  same_images(loaded, expected)
  form = loaded.report.form
  assert form.startswith(f'read as separate folders: normal images in {places["train/good"]}; ')
  assert form.endswith(f'masks in {places["ground_truth"]}')
  assert kinds(loaded.report) == {'unmarked': {f'{names.get("abnormal", "abnormal")}/hole'}}
  assert loaded.train.names[0] == f'{places["train/good"]}/000.png'


@pytest.mark.parametrize('masks', ['masks', 'masks/abnormal'])
def test_abnormal_images_of_one_kind_and_their_masks(root, settings, masks):
  expected = data.load(settings(root=str(root))).test
  move(root, SEPARATE | {'test/scratch': 'abnormal', 'test/hole': 'abnormal/hole'})
  (root / 'masks').rename(root / 'before')
  move(root, {'before/scratch': masks})
  (root / 'before').rmdir()
  loaded = data.load(settings(root=str(root)))
  found = loaded.test.take(np.flatnonzero([each == 'abnormal' for each in loaded.test.defects]))
  before = expected.take(np.flatnonzero([each == 'scratch' for each in expected.defects]))
  np.testing.assert_array_equal(found.images, before.images)
  np.testing.assert_array_equal(found.masks, before.masks)
  assert 'mask_without_image' not in kinds(loaded.report)


def test_without_normal_test_images_every_fifth_is_tested(tmp_path):
  put(tmp_path, *(f'normal/{index}.png' for index in range(12)), 'abnormal/0.png')
  found = recognition.scan(tmp_path)
  assert [item.name for item in found.test if item.defect == 'good'] == [
    f'normal/{index}.png' for index in (0, 5, 10)
  ]
  assert len(found.train) == 9
  assert 'of which every 5th is tested, not trained on; abnormal ones in abnormal' in found.form
  put(tmp_path, 'normal/12.png')
  more = recognition.scan(tmp_path)
  assert more.test == found.test
  assert {*found.train} < {*more.train}


def test_without_abnormal_images_all_normal_ones_are_trained_on(tmp_path):
  put(tmp_path, 'normal/0.png', 'normal/1.png')
  found = recognition.scan(tmp_path)
  assert (len(found.train), found.test) == (2, ())


def test_a_folder_of_normal_images(root, settings):
  expected = data.load(settings(root=str(root))).train
  flat = root / 'train/good'
  put(flat, 'notes/')
  (flat / 'notes/readme.txt').touch()
  (flat / '.DS_Store').touch()
  loaded = data.load(settings(root=str(flat)))
  np.testing.assert_array_equal(loaded.train.images, expected.images)
  assert loaded.train.names == ('000.png', '001.png', '002.png')
  assert len(loaded.test) == 0
  assert loaded.report.form == recognition.FLAT
  assert kinds(loaded.report) == {'other_files': {'notes/readme.txt'}, 'hidden': {'.DS_Store'}}


def test_what_is_not_read_of_separate_folders_is_said(root, settings):
  move(root, SEPARATE)
  put(root, 'normal/more/1.png', 'abnormal/hole/more/1.png', 'masks/scratch/9_mask.png')
  (root / 'normal/1.heic').touch()
  (root / 'masks/1.svg').touch()
  (root / 'abnormal/good_2').mkdir()
  put(root, 'abnormal/good_2/1.png')
  (root / 'license.txt').touch()
  (root / 'abnormal/hole/gone.png').symlink_to('nowhere')
  assert kinds(data.load(settings(root=str(root))).report) == {
    'not_taken': {'normal/more/1.png', 'abnormal/hole/more/1.png'},
    'mask_without_image': {'masks/scratch/9_mask.png'},
    'format_not_read': {'normal/1.heic'},
    'mask_not_read': {'masks/1.svg'},
    'resembles_good': {'abnormal/good_2'},
    'other_files': {'license.txt'},
    'no_file': {'abnormal/hole/gone.png'},
    'unmarked': {'abnormal/hole', 'abnormal/good_2'},
  }


def test_what_is_prepared_is_of_the_content_and_names(root, settings):
  move(root, SEPARATE)
  config = settings(root=str(root))
  first = data.load(config)
  save(root / 'normal/001.png', pixels(99))
  second = data.load(config)
  assert second.train.digests[1] != first.train.digests[1]
  assert second.train.digests[0] == first.train.digests[0]
  assert dataclasses.replace(second.report, of_files=()) == dataclasses.replace(
    first.report, of_files=()
  )


LIST = 'or write a list, parts.csv: path,label,mask,split | a/1.png,good,,train'
REFUSED = {
  'train beside normal': (
    ['train/good/0.png', 'test/x/0.png', 'normal/0.png'],
    f'holds train and normal, both for images: which are trained on? .*, {LIST}',
  ),
  'test beside good': (['test/x/0.png', 'good/0.png'], f'holds test and good, both .*, {LIST}'),
  'two of normal images': (
    ['normal/0.png', 'ok/0.png', 'bad/0.png'],
    f'holds normal and ok, both for normal images; keep one, {LIST}',
  ),
  'two of abnormal images': (
    ['normal/0.png', 'ng/0.png', 'bad/0.png'],
    f'holds bad and ng, both for abnormal images; keep one, {LIST}',
  ),
  'two of masks': (
    ['normal/0.png', 'bad/0.png', 'gt/0.png', 'masks/0.png'],
    f'holds gt and masks, both for masks; keep one, {LIST}',
  ),
  'abnormal images alone': (
    ['bad/0.png', 'masks/0.png'],
    f'holds bad, masks, but no folder of normal images to train on; call it normal, {LIST}',
  ),
  'a folder of an unknown name': (
    ['normal/0.png', 'scratch/0.png', 'dent/0.png'],
    (
      'holds normal, and dent, scratch, whose images may be anything; move defects into '
      f'abnormal/dent, all else away, {LIST}'
    ),
  ),
  'images beside folders': (
    ['normal/0.png', 'bad/0.png', '1.png'],
    f'holds images beside bad, normal; move them into these folders, {LIST}',
  ),
  'normal images among abnormal ones': (
    ['normal/0.png', 'bad/good/0.png'],
    (
      'bad/good: is called good, but lies among abnormal images; move it, if its images are '
      'normal, and call it normal_test'
    ),
  ),
  'images beside others': (
    ['0.png', 'scratch/0.png'],
    (
      'holds images beside scratch; move normal images into train/good, those to test into '
      f'test/TYPE, {LIST}'
    ),
  ),
  'a list beside images': (
    ['0.png', 'parts.csv'],
    'holds images and parts.csv, which may list them; give .*/set/parts.csv, or move it away',
  ),
  'a list above images': (
    ['a/0.png', 'parts.jsonl'],
    'holds no images, but parts.jsonl; give .*/set/parts.jsonl',
  ),
  'unknown names alone': (
    ['a/0.png', 'b/c/0.png'],
    (
      'holds a, b, whose names do not say what is inside; call the folders normal, abnormal and '
      f'masks, {LIST}'
    ),
  ),
  'sets beside each other': (
    ['nuts/train/good/0.png', 'bolts/normal/0.png', 'bolts/bad/0.png'],
    'holds sets of images .bolts, nuts.; give .*/set/bolts, or config.data.category=all',
  ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_is_ambiguous_is_refused_with_what_to_write(tmp_path, settings, case):
  names, words = REFUSED[case]
  put(tmp_path / 'set', *names)
  for name in names:
    if not name.endswith('.png'):
      (tmp_path / 'set' / name).write_text('path,label\n')
  with pytest.raises(UserError, match=words.replace('|', r'\|').replace('?', r'\?')) as caught:
    data.load(settings(root=str(tmp_path / 'set')))
  assert '\n' not in str(caught.value)
  assert str(caught.value).startswith(f'{tmp_path}/set')


def test_too_few_normal_images_to_divide(tmp_path, settings):
  put(tmp_path / 'set', 'normal/0.png', 'bad/0.png')
  with pytest.raises(UserError, match='normal: leaves no image to train on; put more normal'):
    data.load(settings(root=str(tmp_path / 'set')))


def test_a_category_may_have_another_form(root, settings, tmp_path, make_category):
  move(root, SEPARATE)
  make_category(tmp_path / 'bolts')
  put(tmp_path, 'pins/0.png')
  config = settings(root=str(tmp_path), category='all')
  assert sources.present(config) == ['bolts', 'nuts']
  assert sources.passed_over(config).endswith('no category, without train/good: pins')
  one = data.load(settings(root=str(tmp_path), category='nuts'))
  both = data.load(settings(root=str(tmp_path), category='multiclass'))
  assert one.name == 'folder/nuts'
  np.testing.assert_array_equal(both.test.images[5:], one.test.images)
  assert both.report.form.startswith(f'{recognition.MVTEC}; read as separate folders')


def test_a_list_may_be_a_category(root, settings):
  put(root, 'train/good/3.png')
  (root / 'parts.csv').write_text('path,label\ntrain/good/3.png,good\n')
  loaded = data.load(settings(root=str(root), category='parts.csv'))
  assert (loaded.name, len(loaded.train)) == ('folder/parts.csv', 1)


@pytest.mark.parametrize(
  ('name', 'role'),
  [
    *((name, 'normal') for name in ('normal', 'Good', 'defect_free')),
    *((name, 'normal_test') for name in ('normal_test', 'test good', 'OK-Test')),
    *((name, 'abnormal') for name in ('abnormal', 'Not_OK', 'NG', 'anomalies', 'defect')),
    *((name, 'masks') for name in ('mask', 'ground truth', 'GT')),
    *((name, None) for name in ('train', 'test', 'scratch', 'good_2', 'images', '')),
  ],
)
def test_what_names_of_folders_say(name, role):
  assert folder_names.role(name) == role
