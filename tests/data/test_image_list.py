"""Sets that a file lists: the same arrays as from folders, and every line that cannot be used."""

import json

import numpy as np
import pytest

from patch_svdd_jax import data
from patch_svdd_jax.data import image_list, layout
from patch_svdd_jax.data.report import UnusableError
from patch_svdd_jax.errors import UserError

# The tiny category, line by line in no order.
ROWS = [
  ('test/scratch/001.png', 'scratch', 'ground_truth/scratch/001_mask.png', 'test'),
  *((f'train/good/{i:03}.png', 'good', '', 'train') for i in (2, 0, 1)),
  ('test/hole/000.png', 'hole', '', 'test'),
  ('test/good/001.png', 'normal', '', 'test'),
  ('test/scratch/000.png', ' scratch ', 'ground_truth/scratch/000_mask.png', 'Test'),
  ('test/good/000.png', '0', '', 'test'),
]


@pytest.fixture
def root(tmp_path, make_category):
  return make_category(tmp_path / 'nuts')


def as_csv(rows, columns=image_list.COLUMNS, delimiter=','):
  return '\n'.join(delimiter.join(row) for row in [columns, *rows]) + '\n'


def as_json(rows):
  return '\n'.join(json.dumps(dict(zip(image_list.COLUMNS, row, strict=True))) for row in rows)


def write(root, text, name='parts.csv', encoding='utf-8'):
  path = root / name
  path.write_bytes(text.encode(encoding))
  return path


def same(split, other):
  for name, value in vars(other).items():
    np.testing.assert_array_equal(getattr(split, name), value)


FORMS = {
  'commas': ('parts.csv', as_csv(ROWS), 'utf-8'),
  'semicolons, as a spreadsheet writes them': (
    'parts.csv',
    as_csv(ROWS, delimiter=';').replace('\n', '\r\n') + ';;;\r\n',
    'utf-8-sig',
  ),
  'tabs': ('parts.tsv', as_csv(ROWS, delimiter='\t'), 'utf-8'),
  'quotes and blanks': (
    'PARTS.CSV',
    as_csv([(f'"{row[0]}"', *row[1:]) for row in ROWS], delimiter=', '),
    'utf-8',
  ),
  'other order of columns': (
    'parts.csv',
    as_csv([row[::-1] for row in ROWS], ('Split', ' MASK', 'label ', 'Path')),
    'utf-8',
  ),
  'JSON lines': ('parts.jsonl', '\n' + as_json(ROWS) + '\n\n', 'utf-8-sig'),
}


@pytest.mark.parametrize('form', FORMS)
def test_a_list_of_a_folders_images_is_that_folder(root, settings, form):
  name, text, encoding = FORMS[form]
  expected = data.load(settings(root=str(root)))
  loaded = data.load(settings(root=str(write(root, text, name, encoding))))
  same(loaded.train, expected.train)
  same(loaded.test, expected.test)
  assert loaded.name == f'folder/{name}'
  assert loaded.report.form.startswith('read as a list of images (')
  assert loaded.report.groups == expected.report.groups
  assert {each.kind for each in loaded.report.findings} == {'unmarked'}


def test_types_of_json_say_the_same(root):
  rows = [
    {'path': 'train/good/000.png', 'label': False, 'split': 'train', 'mask': None, 'note': [1]},
    {'path': 'test/hole/000.png', 'label': True, 'split': 'test'},
    {'path': 'test/good/000.png', 'label': 0, 'split': 'test'},
    {'path': 'test/scratch/000.png', 'label': 1, 'split': 'test'},
  ]
  found = image_list.scan(write(root, '\n'.join(map(json.dumps, rows)), 'parts.jsonl'))
  assert [item.defect for item in found.train] == ['good']
  assert [item.defect for item in found.test] == ['abnormal', 'abnormal', 'good']
  assert [(each.kind, each.cases[0].name) for each in found.findings] == [
    ('columns_not_read', 'note')
  ]


@pytest.mark.parametrize(
  ('label', 'defect'),
  [
    *((word, 'good') for word in ('good', 'OK', 'Normal', '0', '0.0', 'False', 'defect-free')),
    *((word, 'abnormal') for word in ('1', '1.0', 'true', 'abnormal')),
    *((word, word) for word in ('2', 'scratch', 'bad', 'ng', 'no', 'Scratch on top')),
  ],
)
def test_what_labels_mean(root, label, defect):
  rows = [('train/good/000.png', 'good', '', 'train'), ('test/hole/000.png', label, '', 'test')]
  [item] = image_list.scan(write(root, as_csv(rows))).test
  assert item.defect == defect


def test_validation_images_are_held_out(root, settings):
  rows = [*ROWS[:3], ('train/good/001.png', 'good', '', 'val'), *ROWS[4:]]
  loaded = data.load(settings(root=str(write(root, as_csv(rows))), held_out=0.1))
  assert loaded.held_out.names == ('train/good/001.png',)
  assert loaded.train.names == ('train/good/000.png', 'train/good/002.png')


def test_without_splits_all_normal_images_are_trained_on(root, settings):
  rows = [row[:2] for row in ROWS if 'good' in row[0]]
  loaded = data.load(settings(root=str(write(root, as_csv(rows, ('path', 'label'))))))
  assert (len(loaded.train), len(loaded.test)) == (5, 0)


def test_neither_the_order_of_lines_nor_the_place_matters(root, tmp_path):
  first = layout.fingerprint(image_list.scan(write(root, as_csv(ROWS))))
  assert layout.fingerprint(image_list.scan(write(root, as_json(ROWS[::-1]), 'b.jsonl'))) == first
  moved = root.rename(tmp_path / 'elsewhere')
  assert layout.fingerprint(image_list.scan(moved / 'parts.csv')) == first
  changed = [(*ROWS[0][:2], '', ROWS[0][3]), *ROWS[1:]]
  assert layout.fingerprint(image_list.scan(write(moved, as_csv(changed)))) != first


def test_images_may_lie_elsewhere(root, settings, tmp_path):
  """By absolute paths or ones that lead out; names begin below the folder that all share."""
  lists = tmp_path / 'lists/new'
  lists.mkdir(parents=True)
  rows = [
    (str(root / path) if i % 2 else f'../../nuts/{path}', label, mask and str(root / mask), split)
    for i, (path, label, mask, split) in enumerate(ROWS)
  ]
  loaded = data.load(settings(root=str(write(lists, as_csv(rows)))))
  expected = data.load(settings(root=str(root)))
  assert loaded.test.names == expected.test.names
  np.testing.assert_array_equal(loaded.test.masks, expected.test.masks)
  np.testing.assert_array_equal(loaded.train.images, expected.train.images)


def test_a_list_that_is_a_link_names_what_is_beside_the_link(root, settings, tmp_path):
  stored = write(tmp_path, as_csv(ROWS), 'stored')
  (root / 'parts.csv').symlink_to(stored)
  (tmp_path / 'link').symlink_to(root)
  assert len(data.load(settings(root=str(tmp_path / 'link/parts.csv'))).test) == 5


@pytest.mark.parametrize(
  ('row', 'text'),
  [
    (('', 'good', '', 'train'), 'has no path'),
    (('none.png', 'good', '', 'train'), 'has the path none.png, where no file is'),
    (('test/good', 'good', '', 'test'), 'has the path test/good, where no file is'),
    ((r'test\good\000.png', 'ok', '', 'test'), r'000.png, where no file is; write / for \\'),
    (('a' * 300, 'good', '', 'test'), 'aaa, where no file is'),
    (('gs://x/1.png', 'good', '', 'test'), 'where no file is'),
    (('test/hole/000.png', 'x', 'no.png', 'test'), 'has the mask no.png, where no file is'),
    (('test/hole/000.png', '', '', 'test'), 'has the empty label; write good, or the kind of'),
    (('test/hole/000.png', '-1', '', 'test'), 'has the label -1; write good, or the kind of'),
    (('test/hole/000.png', 'nan', '', 'test'), 'has the label nan; write good'),
    (('test/hole/000.png', 'x', '', ''), 'has the empty split; write train, test or validation'),
    (('test/hole/000.png', 'x', '', 'dev'), 'has the split dev; write train, test or validation'),
    (('test/hole/000.png', 'x', '', 'train'), r'puts a defect \(x\) into train, which holds'),
    (('test/hole/000.png', '1', '', 'val'), r'puts a defect \(abnormal\) into validation'),
    (('train/good/../good/000.png', 'good', '', 'test'), 'again, as line 2 does; keep one'),
    (('test/hole/000.png', 'good', '', 'test', 'x'), 'has 5 cells, the header 4: quote'),
  ],
)
def test_a_line_that_cannot_be_used_is_named_by_its_number(root, row, text):
  path = write(root, as_csv([('train/good/000.png', 'good', '', 'train'), ('',) * 4, row]))
  with pytest.raises(UnusableError, match=rf'^{path}: line 4 .*{text}') as caught:
    image_list.scan(path)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('line', 'text'),
  [
    ('{"path": ', 'is no JSON object such as'),
    ('["train/good/000.png"]', 'is no JSON object such as'),
    ('{"path": {}, "label": "good", "split": "train"}', 'has a path that is no text'),
    ('{"label": "good", "split": "train"}', 'has no path'),
    ('{"path": "train/good/000.png", "split": "train"}', 'has the empty label'),
  ],
)
def test_a_line_of_json_that_cannot_be_used(root, line, text):
  path = write(root, f'{as_json(ROWS[4:])}\n{line}\n', 'parts.jsonl')
  with pytest.raises(UnusableError, match=f'{path}: line 5 {text}'):
    image_list.scan(path)


def test_all_lines_that_cannot_be_used_are_named_at_once(root, settings):
  rows = [*ROWS, *((f'none_{i}.png', '-1', '', 'train') for i in range(20)), ROWS[0]]
  with pytest.raises(UnusableError) as caught:
    data.load(settings(root=str(write(root, as_csv(rows)))))
  text = str(caught.value)
  assert ': 41 lines of the list that cannot be used: line 10 has the path none_0.png' in text
  assert text.endswith('and 31 more (`patch-svdd data` names them all)')
  assert len(caught.value.report.cases('line_unusable')) == 41


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', 'line 1 does not name the columns, path and label among them'),
    ('train/good/000.png,good,,train\n', 'line 1 does not name the columns'),
    ('image,label,mask,split\n', r'lines such as path,label,mask,split \| a/1.png,good,,train'),
    ('path,label,path\n', 'line 1 does not name the columns'),
    ('path,label\n', 'lists no image to train on; give normal ones the split train'),
    (as_csv(ROWS[4:]), 'lists no image to train on'),
    (as_csv([row[:3] for row in ROWS], image_list.COLUMNS[:3]), 'has defects, but no column split'),
    (as_csv(ROWS) + '"unclosed', 'line 10 cannot be read as CSV: unexpected end of data'),
  ],
)
def test_a_list_that_says_not_what_to_train_on(root, text, words):
  path = write(root, text)
  with pytest.raises(UserError, match=words) as caught:
    image_list.scan(path)
  assert str(caught.value).startswith(f'{path}: ')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('encoding', ['latin-1', 'utf-16'])
def test_another_encoding_is_named(root, encoding):
  path = write(root, as_csv([*ROWS, ('é.png', 'good', '', 'train')]), encoding=encoding)
  line = 10 if encoding == 'latin-1' else 1
  with pytest.raises(UserError, match=f'parts.csv: line {line} is not UTF-8; save the list as'):
    image_list.scan(path)


def test_what_else_is_odd_is_said(root, settings):
  shared = 'ground_truth/scratch/000_mask.png'
  rows = [*ROWS[:1], *ROWS[1:4], ('test/hole/000.png', 'good_2', shared, 'test'), *ROWS[5:]]
  text = as_csv([(*row, 'x') for row in rows], (*image_list.COLUMNS, 'masks'))
  found = data.load(settings(root=str(write(root, text)))).report
  assert {each.kind: each.cases[0].name for each in found.findings} == {
    'columns_not_read': 'masks',
    'resembles_good': 'label good_2',
    'mask_shared': shared,
  }


def test_files_that_cannot_be_used_are_named_as_listed(root, settings):
  (root / 'train/good/001.png').write_bytes(b'x')
  with pytest.raises(UserError, match=r'parts.csv: train/good/001.png: is not a PNG'):
    data.load(settings(root=str(write(root, as_csv(ROWS)))))


def test_other_files_are_no_lists(root, settings):
  with pytest.raises(UserError, match=r'parts\.txt: is no folder; .* list of images \(\.csv'):
    data.load(settings(root=str(write(root, as_csv(ROWS), 'parts.txt'))))
