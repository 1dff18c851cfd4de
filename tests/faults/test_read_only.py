"""Folders on a file system that is mounted read-only, which even root cannot write to."""

import json

import pytest

from patch_svdd_jax import configuration, data
from tests.faults import programs
from tests.faults.test_full_disk import MOUNT, can_mount

pytestmark = pytest.mark.skipif(not can_mount(), reason='no file system can be mounted here')

CODE = """
import contextlib, io, json, subprocess, sys
folder, commands = sys.argv[1], json.loads(sys.argv[2])
subprocess.run(['mount', '--bind', folder, folder], check=True)
subprocess.run(['mount', '-o', 'remount,bind,ro', folder], check=True)
from patch_svdd_jax import configuration, data
from patch_svdd_jax.commands import main
found = []
for arguments in commands:
  said = io.StringIO()
  with contextlib.redirect_stderr(said):
    found.append([main(arguments), said.getvalue()])
config = configuration.read(sys.argv[3])
print(json.dumps([found, len(data.load(config.data).train)]))
"""


def test_read_only_folders_are_one_line_at_once_and_prepared_ones_are_read(tmp_path):
  folder = tmp_path / 'disk'
  root = programs.write(folder / 'parts')
  config = programs.config_for(root)
  data.load(configuration.read(config).data)  # prepares
  workdir = folder / 'run'
  workdir.mkdir()
  before = sorted(folder.rglob('*'))
  commands = [
    programs.train(root, workdir),
    programs.evaluate(workdir),
    programs.predict('model', folder / 'found', root),
    ['build-bank', '--workdir', str(workdir)],
    ['export', '--model', 'model', '--output', str(folder / 'parts.onnx')],
    ['sweep', '--config', config, '--workdir', str(workdir)],
    ['baselines', '--config', config, '--workdir', str(workdir)],
    ['import-authors', str(root / 'none.pkl'), '--workdir', str(workdir / 'new')],
  ]
  arguments = [folder, json.dumps(commands), config]
  with programs.start(CODE, arguments, programs.variables({}), *MOUNT) as process:
    printed, errors = process.communicate()
  assert process.returncode == 0, errors
  found, images = json.loads(printed.splitlines()[-1])
  for (status, said), command in zip(found, commands, strict=True):
    assert status == 2, command
    if command[0] != 'import-authors':  # its file is not there
      assert 'Read-only file system' in programs.error_line(said), command
  assert images == 3
  assert sorted(folder.rglob('*')) == before
