"""What commands say of a detector's images, and which steps they are to record."""

import argparse
import dataclasses

import numpy as np
import pytest

from patch_svdd_jax.commands import console
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError


def detector_that_dropped(shares):
  made_without_fitting = Detector(origin=None, params={}, mean=None, banks={})
  return dataclasses.replace(made_without_fitting, dropped=shares)


def test_the_most_suspicious_images_are_named(capsys):
  shares = np.array([0.0, 0.25, 0.02, 0.9, 0.1, 0.05, 0.25])
  console.print_suspects(detector_that_dropped(shares), [f'{i}.png' for i in range(7)])
  (line,) = capsys.readouterr().out.splitlines()
  assert line.endswith(': 3.png (90%), 1.png (25%), 6.png (25%), 4.png (10%), 5.png (5%)')


def test_nothing_is_said_where_nothing_was_dropped(capsys):
  console.print_suspects(detector_that_dropped(None), ['0.png'])
  assert not capsys.readouterr().out


def profile_options(*arguments):
  parser = argparse.ArgumentParser()
  console.add_profile_arguments(parser, 'steps')
  return parser.parse_args(arguments)


@pytest.mark.parametrize('text', ['5:5', '7:3', '5', '5:', ':5', 'a:b', '-1:4', '1.5:2', '1:2:3'])
def test_what_is_no_range_of_steps_is_refused(text, capsys):
  with pytest.raises(SystemExit):
    profile_options('--profile', 'traces', f'--profile-steps={text}')
  assert 'give two numbers, the smaller first, as 10:50' in capsys.readouterr().err


def test_steps_need_a_folder_and_a_trace_a_single_run(tmp_path, capsys):
  options = profile_options('--profile-steps', '3:10')
  assert options.profile_steps == (3, 10)
  with pytest.raises(UserError, match='add --profile FOLDER'), console.profile(options):
    pass
  with pytest.raises(UserError, match='a single run'):
    console.refuse_profile(options)
  with console.profile(profile_options()):
    console.refuse_profile(profile_options())
  assert not capsys.readouterr().out
