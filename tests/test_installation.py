"""The package from a wheel, from an sdist, from a checkout: each in an environment of its own."""

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile

import pytest

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[1]
SETTINGS = {
  'data.image_size': (80, 80),
  'data.prepared': 'prepared',
  'encoder.width': 0.1,
  'train.steps': 10,
  'train.warmup_steps': 0,
  'train.crop_size': 64,
  'calibration.images': 0,
}
TINY = ['--config', 'laptop:brick', *(f'--config.{key}={SETTINGS[key]}' for key in SETTINGS)]


def run(*command, cwd):
  """Standard output of a command that succeeds, in a process that knows no other package."""
  environment = os.environ | {'PYTHONPATH': '', 'JAX_DISABLE_MOST_OPTIMIZATIONS': '1'}
  done = subprocess.run(
    [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def files_below(folder):
  found = (path for path in folder.rglob('*') if path.is_file() and path.suffix != '.pyc')
  return {path.relative_to(folder) for path in found}


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
  """What a fresh checkout has, as far as it is installed or run."""
  place = tmp_path_factory.mktemp('checkout')
  for folder in ('patch_svdd_jax', 'configs'):
    shutil.copytree(ROOT / folder, place / folder, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('train.py', 'eval.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, place)
  return place


@pytest.fixture(scope='module')
def distributions(checkout, tmp_path_factory):
  """The sdist, and the wheel that is built from the sdist, by their suffixes."""
  folder = tmp_path_factory.mktemp('dist')
  run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', folder, checkout, cwd=folder)
  return {path.suffix: path for path in folder.iterdir()}


def environment(place, *install):
  """The programs of a fresh environment that has all requirements, and what pip is to install."""
  venv.create(place)
  [packages] = place.glob('lib/python*/site-packages')
  # Files of this kind are not read in the folders that they name: no editable install leaks in.
  (packages / 'requirements.pth').write_text(sysconfig.get_path('purelib'))
  if install:
    pip = [sys.executable, '-m', 'pip', '--python', place / 'bin/python', 'install']
    offline = ['--no-deps', '--no-index', '--no-build-isolation', '--ignore-installed']
    run(*pip, *offline, *install, cwd=place)
  return place / 'bin'


def test_the_wheel_holds_the_package_and_its_configs_alone(checkout, distributions, tmp_path):
  with zipfile.ZipFile(distributions['.whl']) as wheel:
    wheel.extractall(tmp_path)
  package = tmp_path / 'patch_svdd_jax'
  assert files_below(package / 'configs') == files_below(checkout / 'configs')
  shutil.rmtree(package / 'configs')
  leads_there = pathlib.Path('configs/__init__.py')
  assert files_below(package) | {leads_there} == files_below(checkout / 'patch_svdd_jax')
  assert [path.suffix for path in tmp_path.iterdir() if path != package] == ['.dist-info']


@pytest.mark.parametrize(
  ('what', 'started'),
  [
    ('nothing', [['train.py'], ['eval.py'], ['-m', 'patch_svdd_jax', 'train']]),
    ('editable', [['-m', 'patch_svdd_jax', 'eval']]),
    ('.whl', [['train.py']]),
    ('.gz', []),
  ],
)
def test_a_checkout_reads_its_own_configs_whatever_is_installed(
  checkout, distributions, tmp_path, what, started
):
  arguments = {'nothing': [], 'editable': ['--editable', checkout]}
  programs = environment(tmp_path / 'env', *arguments.get(what, [distributions.get(what)]))
  python = programs / 'python'
  place_of_configs = (
    'from patch_svdd_jax import configuration; print(configuration.find("default"))'
  )
  ours = f'{checkout / "configs/default.py"}\n'
  assert run(python, '-c', place_of_configs, cwd=checkout) == ours
  for program in started:
    assert '--config.train.steps=' in run(python, *program, '--help', cwd=checkout)
  if what != 'nothing':
    assert 'import-authors' in run(programs / 'patch-svdd', '--help', cwd=tmp_path)
    installed = run(python, '-c', place_of_configs, cwd=tmp_path)
    assert installed == ours if what == 'editable' else installed.startswith(f'{tmp_path}/env/')


def test_a_wheel_trains(distributions, tmp_path):
  patch_svdd = environment(tmp_path / 'env', distributions['.whl']) / 'patch-svdd'
  run(patch_svdd, 'train', *TINY, '--workdir', 'run', cwd=tmp_path)
  assert (tmp_path / 'run/config.json').is_file()
