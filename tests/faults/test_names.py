"""Files and folders of any name that a file system takes."""

import csv
import json
import os

import numpy as np

from patch_svdd_jax.commands import main
from patch_svdd_jax.errors import one_line
from patch_svdd_jax.system import files
from tests.faults import programs

NAMES = [
  b'two words.png',
  'ü名😀.png'.encode(),
  b'q"\'<b>&.png',
  b'new\nline.png',
  b'-dash.png',
  b'%25%s{x}.png',
  b'x' * 251 + b'.png',
  b'y' * 251 + b'.jpg',
  b'not utf-8 \xff.png',
  b'back\\slash.png',
  b'\x1b[31m.png',
  '\u2028.png'.encode(),
]


def test_names_of_all_kinds_go_through_train_eval_and_predict(tmp_path, capsys):
  root = programs.write(tmp_path / os.fsdecode(b'parts \xff\n"1"'))
  names = [os.fsdecode(name) for name in NAMES]
  for index, name in enumerate(names):
    programs.save(root / 'train' / 'good' / name, programs.noise(3, index))
    programs.save(root / 'test' / 'bad <1>' / name, programs.noise(4, index))
  # The config's argument cannot be of such a name: `root` is set as a key.
  data = [f'--config.data.root={root}', f'--config.data.prepared={tmp_path / "prepared"}']
  config = programs.config_for(tmp_path / 'any')
  workdir, found = tmp_path / 'ü name', tmp_path / os.fsdecode(b'found \xfe')
  assert main(['train', '--config', config, '--workdir', str(workdir), *data]) == 0
  assert main(programs.evaluate(workdir, '--no-random-encoder')) == 0
  with np.load(workdir / 'eval' / 'maps.npz') as maps:
    evaluated = set(maps['names'].tolist())
  assert {f'test/bad <1>/{name}' for name in names} < evaluated
  written = [path for path in (workdir / 'eval' / 'overlays').rglob('*') if path.is_file()]
  assert len(written) == len(evaluated)

  arguments = [*programs.predict(workdir, found, root / 'test' / 'bad <1>'), '--pictures', 'all']
  for _ in range(2):  # also over what is there
    assert main(arguments) == 0
  lines = map(json.loads, (found / 'results.jsonl').read_text().splitlines())
  assert {line['image'] for line in lines} == set(names)
  with (found / 'results.csv').open(newline='', encoding='utf-8') as file:
    table = {row['image'] for row in csv.DictReader(file)}
  assert table == {name.replace('\udcff', '\\udcff') for name in names}
  html = (found / 'report.html').read_bytes().decode()
  assert '<b>' not in html.partition('q&#34;')[2][:20]
  for kind in ('masks', 'overlays'):
    assert len(list((found / kind).iterdir())) == len(names)
  assert 'Traceback' not in capsys.readouterr().err


def test_an_error_that_quotes_a_name_stays_in_its_line(tmp_path, capsys):
  assert main(programs.predict('model', tmp_path / 'found', tmp_path / 'no\nsuch \x1b[31mü')) == 2
  line = programs.error_line(capsys.readouterr().err)
  assert line == f'error: {tmp_path}/no\\nsuch \\x1b[31mü: no such file or folder'
  assert one_line('ü 名, fine') == 'ü 名, fine'


def test_a_workdir_that_is_not_utf8_is_refused(tmp_path, capsys):
  root = programs.write(tmp_path / 'parts')
  assert main(programs.train(root, tmp_path / os.fsdecode(b'run \xff'))) == 2
  assert 'its name is not UTF-8: rename it' in programs.error_line(capsys.readouterr().err)


def test_long_names_stay_apart_and_fit():
  for length in (240, 248, 251, 252, 255):
    names = {'é' * (length // 2) + end for end in 'abc'}
    short = {files.fitting(name, '.png') for name in names}
    assert len(short) == 3
    for name in short | {files.fitting(name, '.tmp') for name in short}:
      assert len(os.fsencode(name)) <= files.LONGEST_NAME
      assert name.endswith(('.png', '.tmp'))
  assert files.fitting('name', '.png') == 'name.png'
