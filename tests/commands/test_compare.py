import json
import re
import tarfile

import pytest

from patch_svdd_jax.commands import main
from patch_svdd_jax.reporting import comparison_files
from tests.experiments.test_old_runs import OLD
from tests.support import measured_runs


@pytest.fixture
def runs(tmp_path):
  return [
    str(measured_runs.write(tmp_path / 'runs' / name, measured_runs.contents(seed)))
    for seed, name in enumerate(('one', 'two', 'three'))
  ]


def test_what_is_printed_is_what_is_written(runs, tmp_path, capsys):
  output = tmp_path / 'out' / 'deeper'
  assert main(['compare', *runs, '--output', str(output), '--resamples=30', '--seed=7']) == 0
  shown = capsys.readouterr().out
  text, _, written = shown.rpartition('\n\nwritten: ')
  assert text.startswith('# two, three against one\n')
  assert '30 samples of the test images' in text
  assert (output / 'compare.md').read_text() == f'{text}\n'
  assert written == f'{output}: {", ".join(comparison_files.NAMES)}\n'
  assert {path.name for path in output.iterdir()} == {*comparison_files.NAMES}


def test_the_same_command_prints_the_same_and_another_seed_other_intervals(runs, capsys):
  shown = []
  for seed in ('0', '0', '1'):
    assert main(['compare', *runs[:2], '--resamples=50', '--seed', seed]) == 0
    shown.append(re.search(r'\[.*\]', capsys.readouterr().out)[0])
  assert shown[0] == shown[1] != shown[2]


def test_workdirs_of_all_categories(tmp_path, capsys):
  runs = [
    measured_runs.write_all(
      tmp_path / f'run-{run}',
      {name: measured_runs.contents(10 * run + i) for i, name in enumerate(('nut', 'screw'))},
    )
    for run in range(2)
  ]
  # One that failed has no figures but those of an earlier try.
  measured_runs.write(runs[0] / 'bolt', measured_runs.contents(7))
  record = runs[0] / 'categories.json'
  record.write_text(json.dumps(json.loads(record.read_text()) | {'bolt': {'error': 'lost'}}))
  assert main(['compare', *map(str, runs), '--resamples=9']) == 0
  shown = capsys.readouterr().out
  assert '## Mean of 2 categories' in shown
  assert re.search(r'\| AUPIMO +\| +nut \|', shown)
  # Its folders are runs too.
  assert main(['compare', *(str(run / 'nut') for run in runs), '--resamples=9']) == 0
  assert '# run-1 against run-0\n' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['one'], 'name two runs or more'),
    (['one', 'one'], 'one is named twice'),
    (['one', 'nothing'], 'nothing was not measured: run `patch-svdd eval --workdir'),
    (['one', 'other'], 'other was measured on other test images than'),
    (['one', 'two', '--config=laptop'], "unexpected argument '--config=laptop'"),
    (['one', 'two', '--output=one/eval/metrics.json'], 'cannot write'),
  ],
)
def test_what_cannot_be_compared_is_one_line(runs, tmp_path, monkeypatch, capsys, arguments, words):
  monkeypatch.chdir(tmp_path / 'runs')
  measured_runs.write(
    tmp_path / 'runs' / 'other', measured_runs.contents(0, names=['good/1', 'hole/1', 'hole/2'])
  )
  assert main(['compare', *arguments]) == 2
  error = capsys.readouterr().err
  assert words in error
  assert error.count('\n') == 1


@pytest.mark.parametrize('value', ['0', '-3'])
def test_there_are_samples(runs, capsys, value):
  with pytest.raises(SystemExit):
    main(['compare', *runs, f'--resamples={value}'])
  assert f'{value}: give at least 1' in capsys.readouterr().err


def test_an_old_run_is_to_be_measured_first(runs, tmp_path, capsys):
  with tarfile.open(OLD / 'run.tar.xz') as archive:
    archive.extractall(tmp_path, filter='data')
  assert main(['compare', runs[0], str(tmp_path / 'begun')]) == 2
  assert f'run `patch-svdd eval --workdir {tmp_path / "begun"}`' in capsys.readouterr().err
