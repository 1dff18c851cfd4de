"""`data` end to end, and its short form in train and eval."""

import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from patch_svdd_jax.commands import main
from patch_svdd_jax.data import report
from tests.support.categories import save

SIZE = (40, 48)
CONFIG = """
from patch_svdd_jax.configs import default


def get_config(root):
  config = default.get_config()
  config.data.update(
    {'name': 'folder', 'category': '', 'root': root, 'prepared': root + '_prepared'}
  )
  config.data.image_size = (40, 48)
  config.encoder.update(
    {'receptive_field': 16, 'depth': 3, 'width': 0.25, 'embed_dim': 8, 'scales': (16,)}
  )
  config.train.update({'steps': 1, 'steps_per_call': 1, 'batch_size': 4})
  config.score.strides = (8,)
  return config
"""
SPOT = np.zeros(SIZE, bool)
SPOT[10:20, 20:30] = True


def noise(seed):
  return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def write(root):
  """Four images to train on, three good ones and six defective ones with masks to test."""
  for index in range(4):
    save(root / f'train/good/{index}.png', noise(index))
  for index in range(3):
    save(root / f'test/good/{index}.png', noise(10 + index))
  for index in range(6):
    save(root / f'test/spot/{index}.png', np.where(SPOT[..., None], 255, noise(20 + index)))
    save(root / f'ground_truth/spot/{index}_mask.png', SPOT.astype(np.uint8) * 255)
  return root


def put(path, content=b'x'):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def encoded(kind, array=SPOT):
  content = io.BytesIO()
  Image.fromarray(array).save(content, kind)
  return content.getvalue()


@pytest.fixture
def place(tmp_path):
  (tmp_path / 'tiny.py').write_text(CONFIG)
  return tmp_path


def run(capsys, command, place, root, *more):
  """Returns status, standard output, and standard error without progress bars."""
  capsys.readouterr()
  config = ['--config', f'{place}/tiny.py:{root}'] if command != 'eval' else []
  workdir = [] if command == 'data' else ['--workdir', f'{root}_run']
  status = main([command, *config, *workdir, *more])
  out, err = capsys.readouterr()
  return status, out, [line for line in re.split(r'[\r\n]+', err) if line.startswith(SAID)]


SAID = 'warning: ', 'error: '


def respell(root):
  """Oddities that are all read right, or passed over, so that figures stay as they are."""
  (root / 'train/good').rename(root / 'train/Good ')
  (root / 'test/good').rename(root / 'test/OK')
  (root / 'ground_truth').rename(root / 'Ground-Truth')
  truth = root / 'Ground-Truth/spot'
  np.save(truth / '0.npy', SPOT)
  (truth / '1_mask.png').rename(truth / '1.PNG')
  put(truth / '2_gt.bmp', encoded('BMP', SPOT.astype(np.uint8) * 255))
  put(truth / '3/000.png', encoded('PNG', SPOT & (np.arange(48) < 25)))
  put(truth / '3/001.png', encoded('PNG', SPOT & (np.arange(48) >= 25)))
  put(truth / '4_mask.png', encoded('PNG', SPOT.astype(np.uint8)))
  for index in (0, 2, 3):
    (truth / f'{index}_mask.png').unlink()
  (root / 'test/spot').rename(root / 'elsewhere')
  (root / 'test/spot').symlink_to(root / 'elsewhere')
  for name in ('train/Good /.DS_Store', 'train/Good /notes.txt', 'readme.md', 'test/OK/Thumbs.db'):
    put(root / name)
  for name in ('test/OK/a.heic', 'test/spot/more/1.png', 'test/7.jpg', 'validation/1.png'):
    put(root / name)
  put(truth / '77_mask.png', encoded('PNG'))
  return root


# What `respell` and `spoil` leave, each by a name that must be said.
RESPELLED = {
  'format_not_read': 'test/OK/a.heic',
  'linked_folder': 'test/spot/more',
  'wrong_level': 'test/7.jpg',
  'folder_beside': 'validation',
  'mask_without_image': 'Ground-Truth/spot/77_mask.png',
  'good_by_another_name': 'test/OK',
  'masks_by_another_name': 'Ground-Truth',
  'masks_joined': 'test/spot/3.png',
  'mask_labels': 'Ground-Truth/spot/4_mask.png',
  'hidden': 'train/Good /.DS_Store',
  'other_files': 'train/Good /notes.txt',
}


def spoil(root):
  """A dozen oddities that make results wrong, or may."""
  truth = root / 'ground_truth/spot'
  put(truth / '0_mask.png', encoded('PNG', ~SPOT))
  put(truth / '1_mask.png', encoded('PNG', np.zeros(SIZE, bool)))
  put(
    truth / '2_mask.png',
    encoded('PNG', SPOT & (np.arange(48) < 21) & (np.arange(40) < 15)[:, None]),
  )
  put(truth / '3_mask.png', encoded('PNG', noise(9)[..., 0] // 3 * SPOT + SPOT))
  (truth / '4_mask.png').rename(truth / '4_mask.heic')
  put(truth / '5_mask.bmp', encoded('BMP', SPOT.astype(np.uint8)))
  put(root / 'test/spot/6.jpg', b'damaged')
  put(root / 'test/good_2/0.png', encoded('PNG', noise(5)))
  put(root / 'test/good/1_mask.png', encoded('PNG', SPOT))
  put(root / 'train/good/7.heic')
  put(root / 'train/bad/0.png', encoded('PNG', noise(6)))
  (root / 'train/good/more').symlink_to(root / 'test')
  (root / 'test/spot/gone.png').symlink_to('nowhere')
  put(root / 'masks/spot/0.png', encoded('PNG'))
  put(root / 'ground_truth/3_mask.png', encoded('PNG'))
  return root


SPOILED = {
  'test_file_unusable': 'has several masks',
  'mask_inverted': 'test/spot/0.png',
  'mask_empty': 'test/spot/1.png',
  'mask_tiny': 'test/spot/2.png',
  'mask_grey': 'ground_truth/spot/3_mask.png',
  'mask_not_read': 'ground_truth/spot/4_mask.heic',
  'some_unmarked': 'test/spot/4.png',
  'resembles_good': 'test/good_2',
  'format_not_read': 'train/good/7.heic',
  'not_trained_on': 'train/bad',
  'linked_folder': 'train/good/more',
  'no_file': 'test/spot/gone.png',
  'masks_elsewhere': 'masks',
  'wrong_level': 'ground_truth/3_mask.png',
}


@pytest.mark.slow
def test_a_dozen_oddities_are_one_report_and_change_no_figure(capsys, place):
  roots = write(place / 'plain'), respell(write(place / 'odd'))
  figures = []
  for root in roots:
    assert run(capsys, 'train', place, root)[0] == 0
    status, _, said = run(capsys, 'eval', place, root, '--no-random-encoder')
    assert status == 0
    metrics = json.loads((place / f'{root}_run/eval/metrics.json').read_text())
    figures.append((metrics['maps'], metrics['per_defect']))
  assert figures[0] == figures[1]
  # A few lines, each time anew, and the page and the workdir have them.
  again = run(capsys, 'eval', place, root, '--no-random-encoder')[2]
  assert again == said
  for kind, name in RESPELLED.items():
    lines = [line for line in said if report.KINDS[kind].title in line and name in line]
    assert len(lines) == (report.KINDS[kind].weight != 'note')
  page = (place / 'odd_run/eval/report.html').read_text()
  for kind, name in RESPELLED.items():
    assert f'<li data-kind="{kind}"' in page
    assert name in page
  for file in ('data_report.json', 'eval/data_report.json'):
    contents = json.loads((place / 'odd_run' / file).read_text())
    kinds = {each['kind'] for each in contents['of_files'] + contents['of_folders']}
    assert kinds == set(RESPELLED)
  status, out, _ = run(capsys, 'data', place, root, '--json', str(place / 'report.json'))
  assert status == 1
  for kind, name in RESPELLED.items():
    assert any(report.KINDS[kind].title in line and name in line for line in out.splitlines())
  assert json.loads((place / 'report.json').read_text()) == contents


def test_what_makes_results_wrong_is_all_named_at_once(capsys, place):
  root = spoil(write(place / 'parts'))
  status, out, err = run(capsys, 'data', place, root, '--json', str(place / 'report.json'))
  assert (status, err) == (1, [])
  lines = [line for line in out.splitlines() if line.startswith('  ')]
  for kind, name in SPOILED.items():
    [line] = [line for line in lines if line.startswith(f'  {report.KINDS[kind].title}: ')]
    assert name in line
  contents = json.loads((place / 'report.json').read_text())
  found = {each['kind']: each['count'] for each in contents['of_files'] + contents['of_folders']}
  assert set(found) == {*SPOILED, 'mask_labels', 'unmarked'} - {'mask_labels'}
  assert found['test_file_unusable'] == 3
  assert '3 kinds' not in out
  assert re.search(r'\d+ kinds of problems make results wrong', out)
  assert not (place / 'parts_run').exists()


def test_train_goes_on_without_bad_test_images_and_eval_refuses(capsys, place):
  root = write(place / 'parts')
  for name in ('good/0', 'spot/3', 'spot/4'):
    put(root / f'test/{name}.png', b'')
  put(root / 'ground_truth/spot/5_mask.png', encoded('PNG', SPOT[:-1]))
  status, out, said = run(capsys, 'train', place, root)
  assert status == 0
  assert 'test 5 (2 good, 3 defective' in out
  assert said[0].startswith('warning: test images that cannot be used: 4 (')
  status, _, said = run(capsys, 'eval', place, root)
  assert status == 2
  [line] = said
  for name in ('test/good/0.png', 'test/spot/3.png', 'test/spot/4.png', 'spot/5_mask.png'):
    assert name in line
  for name in ('good/0', 'spot/3', 'spot/4'):
    (root / f'test/{name}.png').unlink()
  (root / 'ground_truth/spot/5_mask.png').unlink()
  status, _, said = run(capsys, 'eval', place, root, '--no-random-encoder')
  assert status == 0
  assert any('where others of their type have one: 1 (test/spot/5.png)' in line for line in said)


def test_train_names_all_bad_training_images_in_one_run(capsys, place):
  root = write(place / 'parts')
  for index in (0, 2, 3):
    put(root / f'train/good/{index}.png', b'x')
  put(root / 'train/good/5.jpg', encoded('JPEG', noise(1))[:200])
  status, _, said = run(capsys, 'train', place, root)
  assert status == 2
  [line] = said
  assert line.startswith(f'error: {root}: 4 training images that cannot be used: ')
  assert all(f' train/good/{name}: ' in line for name in ('0.png', '2.png', '3.png', '5.jpg'))
  status, out, _ = run(capsys, 'data', place, root)
  assert status == 1
  assert 'training images that cannot be used: 4 (' in out


def test_nothing_wrong(capsys, place):
  root = write(place / 'parts')
  status, out, said = run(capsys, 'data', place, root)
  assert (status, said) == (0, [])
  assert 'nothing was found that makes results wrong' in out
  assert re.search(r'\| test/spot +\| +spot \| +6 \| +6 \|', out)


@pytest.mark.parametrize('missing', ['train', 'train/good'])
def test_without_training_images_all_else_is_said_too(capsys, place, missing):
  root = write(place / 'parts')
  shutil.rmtree(root / missing)
  put(root / 'test/spot/6.jpg', b'damaged')
  put(root / 'train/1.png')
  status, out, _ = run(capsys, 'data', place, root)
  assert status == 1
  for words in ('train/good: has no images', 'train/1.png', '6.jpg: is not a PNG'):
    assert words in out
  status, _, said = run(capsys, 'train', place, root)
  assert status == 2
  assert 'train/good: has no images; put normal images there' in said[0]


def test_all_categories(capsys, place):
  for name in ('nuts', 'bolts'):
    write(place / 'all' / name)
  put(place / 'all/bolts/test/spot/1.gif')
  more = ['--config.data.category=all', '--json', str(place / 'report.json')]
  put(place / 'all/pins/1.png')
  status, out, said = run(capsys, 'data', place, place / 'all', *more)
  assert status == 1
  assert said == [f'warning: {place / "all"}: no category, without train/good: pins']
  assert 'folder/bolts: train 4' in out
  assert 'folder/nuts: train 4' in out
  assert set(json.loads((place / 'report.json').read_text())) == {'bolts', 'nuts'}


def test_a_category_with_bad_test_images_has_no_figures(capsys, place):
  for name in ('bolts', 'nuts'):
    write(place / 'all' / name)
  put(place / 'all/nuts/test/spot/1.png', b'')
  status, _, _ = run(capsys, 'train', place, place / 'all', '--config.data.category=all')
  assert status == 1
  entries = json.loads((place / 'all_run/categories.json').read_text())
  assert 'maps' in str(entries['bolts'])
  assert '1.png: is not a PNG' in str(entries['nuts'])
  assert 'image_auroc' not in str(entries['nuts'])


def test_textures_have_no_files(capsys, place):
  prepared = f'--config.data.prepared={place / "prepared"}'
  assert main(['data', '--config', 'laptop:brick', prepared]) == 0
  assert 'textures/brick: no files to report on' in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_one_line(capsys, place):
  status, _, said = run(capsys, 'data', place, write(place / 'parts'), '--json', str(place))
  assert status == 2
  assert said == [f'error: cannot write {place}: it is a folder']
