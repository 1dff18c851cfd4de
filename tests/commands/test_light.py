import numpy as np
import pytest

from patch_svdd_jax import commands, configuration
from patch_svdd_jax.commands import light
from patch_svdd_jax.configs import textures
from patch_svdd_jax.evaluation.light_sensitivity import Lighting, Sensitivity


def test_the_table_names_each_light():
  header, lines = light.table(
    [Sensitivity(Lighting(-15, 1.0), 0.75, 1.5), Sensitivity(Lighting(0, 0.8), 0.5, np.float64(1))]
  )
  assert len(header) == 3
  assert lines == [['-15 grey levels', '0.750', '1.500'], ['contrast x 0.8', '0.500', '1.000']]


@pytest.mark.parametrize(
  ('held_out', 'arguments', 'words'),
  [
    (0.0, [], 'no normal image was held out: train with config.data.held_out'),
    (0.1, [], 'no fitted detector'),
    (0.1, ['--bright'], "unexpected argument '--bright'"),
  ],
)
def test_what_is_missing_is_said(tmp_path, capsys, held_out, arguments, words):
  config = textures.get_config()
  config.data.held_out = held_out
  configuration.save(config, tmp_path)
  assert commands.main(['light', '--workdir', str(tmp_path), *arguments]) == 2
  error = capsys.readouterr().err.splitlines()[-1]
  assert words in error


def test_named_lights_stand_as_they_are_called():
  assert light.table([Sensitivity('shift_1', 0.75, 1.5)])[1] == [['shift_1', '0.750', '1.500']]
