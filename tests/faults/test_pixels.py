"""Deep files, turned files and odd metadata through train, eval and predict."""

import json

import numpy as np
import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.configuration import FILE
from patch_svdd_jax.detection.detector import FOLDER, Detector, saved_origin
from patch_svdd_jax.system import digests
from tests.data.image_files import chunk, exif, png, tiff
from tests.faults import programs


def save(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def deep(bits, *seed):
  """Noise whose 8 highest bits are those of `programs.noise`."""
  return programs.noise(*seed).astype(np.uint16) << (bits - 8)


def write(root, bits, train=3):
  """A category of so many bits a channel, in 16, with a hole and its mask."""
  for index in range(train):
    save(root / f'train/good/{index}.png', png(deep(bits, 0, index)))
  save(root / 'test/good/0.png', tiff(deep(bits, 1, 0)))
  hole, mask = deep(bits, 2, 0), np.zeros(programs.SIZE, np.uint8)
  hole[10:20, 10:20], mask[10:20, 10:20] = 0, 255
  save(root / 'test/hole/0.png', png(hole))
  save(root / 'ground_truth/hole/0_mask.png', png(mask))
  return root


def figures(workdir):
  maps = json.loads((workdir / 'eval/metrics.json').read_text())['maps']
  with np.load(workdir / 'eval/maps.npz') as arrays:
    return maps, {name: arrays[name] for name in arrays.files if arrays[name].dtype.kind == 'f'}


def lines(output):
  found = map(json.loads, (output / 'results.jsonl').read_text().splitlines())
  return {line['image']: line for line in found}


def test_files_of_12_bits_score_as_their_8_highest(tmp_path):
  deep_root = write(tmp_path / 'deep', 12)
  plain_root = write(tmp_path / 'plain', 8)
  for root in (deep_root, plain_root):
    workdir = tmp_path / f'{root.name}.run'
    assert main(programs.train(root, workdir)) == 0
    assert main(programs.evaluate(workdir)) == 0
  ours, theirs = figures(tmp_path / 'deep.run'), figures(tmp_path / 'plain.run')
  assert ours[0] == theirs[0]
  for name, values in ours[1].items():
    np.testing.assert_array_equal(values, theirs[1][name])
  ranges = [saved_origin(tmp_path / f'{n}.run').config.data.value_range for n in ('deep', 'plain')]
  assert ranges == [(0, 4095), (0, 255)]


def test_predict_names_what_does_not_fit_and_goes_on(tmp_path):
  root = write(tmp_path / 'parts', 12)
  assert main(programs.train(root, tmp_path / 'run')) == 0
  new = tmp_path / 'new'
  save(new / 'good.png', png(deep(12, 3)))
  save(new / 'good8.png', png(programs.noise(3)))
  save(new / 'odd exif.png', png(programs.noise(3), metadata=chunk(b'eXIf', b'MM\0*')))
  text = chunk(b'tEXt', b'Raw profile type exif\0\nexif\n     4\nzz\n')
  save(new / 'odd profile.png', png(programs.noise(3), metadata=text))
  save(new / 'sixteen.png', png(deep(16, 3)))
  save(new / 'eight in 16.png', png(programs.noise(3).astype(np.uint16)))
  save(new / 'float.tif', tiff((programs.noise(3) / 255).astype(np.float32)))
  save(new / 'nan.tif', tiff(np.full(programs.SIZE, np.nan)))
  assert main(programs.predict(tmp_path / 'run', tmp_path / 'found', new)) == 1
  found = lines(tmp_path / 'found')
  scores = {name: line['score'] for name, line in found.items() if 'score' in line}
  assert set(scores) == {'good.png', 'good8.png', 'odd exif.png', 'odd profile.png'}
  assert len(set(scores.values())) == 1
  for name in ('sixteen.png', 'eight in 16.png', 'float.tif'):
    assert (
      'the training images (config.data.value_range) range from 0 to 4095' in (found[name]['error'])
    )
  assert 'no numbers' in found['nan.tif']['error']


@pytest.mark.parametrize('command', ['train', 'eval'])
def test_train_and_eval_name_a_file_of_another_range(tmp_path, command, capsys):
  root = write(tmp_path / 'parts', 12)
  if command == 'eval':
    assert main(programs.train(root, tmp_path / 'run')) == 0
  save(root / 'test/hole/1.png', png(deep(16, 3)))
  arguments = programs.train(root, tmp_path / 'run')
  if command == 'eval':
    arguments = programs.evaluate(tmp_path / 'run')
  capsys.readouterr()
  # Training needs no test image; a figure without one is no figure of the set.
  assert main(arguments) == {'train': 0, 'eval': 2}[command]
  shown = capsys.readouterr()
  said = ' '.join((shown.out + shown.err).split())
  assert 'test/hole/1.png: holds values from' in said
  assert 'range from 0 to 4095' in said


def forget_range(workdir):
  """Makes a workdir one that was saved before there was the key."""
  path = workdir / FILE
  config = json.loads(path.read_text())
  del config['data']['value_range']
  path.write_text(json.dumps(config))
  (number,) = (folder for folder in (workdir / FOLDER).iterdir() if folder.name.isdigit())
  about = next(p for p in number.rglob('*') if p.is_file() and b'value_range' in p.read_bytes())
  saved = json.loads(about.read_text())
  del saved['config']['data']['value_range']
  about.write_text(json.dumps(saved))
  digests.seal(number)


@pytest.mark.parametrize('bits', [8, pytest.param(16, marks=pytest.mark.slow)])
def test_what_was_saved_before_the_range_was_goes_on_with_equal_figures(tmp_path, bits):
  root = write(tmp_path / 'parts', 16)
  if bits == 8:
    for path in [*root.glob('train/good/*.png'), *root.glob('test/*/*.png')]:
      save(path, png(programs.noise(5, len(path.parts[-2]), int(path.stem))))
  workdir = tmp_path / 'run'
  assert main(programs.train(root, workdir)) == 0
  assert main(programs.evaluate(workdir)) == 0
  before = figures(workdir)
  forget_range(workdir)
  assert Detector.load(workdir).config.data.value_range == (0, 65535)
  assert main(programs.evaluate(workdir)) == 0
  after = figures(workdir)
  assert after[0] == before[0]
  for name, values in before[1].items():
    np.testing.assert_array_equal(values, after[1][name])
  assert main(programs.train(root, workdir, '--config.train.steps=6')) == 0


def test_boxes_masks_and_sizes_are_of_the_upright_image(tmp_path):
  root = programs.write(tmp_path / 'parts')
  assert main(programs.train(root, tmp_path / 'run')) == 0
  new, output = tmp_path / 'new', tmp_path / 'found'
  for orientation in range(1, 9):
    stored = png(programs.noise(4), metadata=chunk(b'eXIf', exif(orientation)))
    save(new / f'{orientation}.png', stored)
  arguments = programs.predict(tmp_path / 'run', output, new)
  assert main([*arguments, '--pictures', 'all']) == 0
  found = lines(output)
  for orientation in range(1, 9):
    height, width = programs.SIZE[::-1] if orientation > 4 else programs.SIZE
    assert found[f'{orientation}.png']['size'] == [width, height]
    (mask,) = (output / 'masks').rglob(f'{orientation}.png*')
    with programs.Image.open(mask) as image:
      assert image.size == (width, height)
