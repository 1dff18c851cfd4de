"""The authors' screw weights give the authors' figures, through the commands that users type."""

import json
import os
import subprocess
import sys

import pytest

# Image and pixel AUROC with exact neighbours and Pillow's old default filter, measured with the
# authors' own PyTorch encoder. The paper has .813 and .957 for the product.
EXPECTED = {
  'k64': (0.7393, 0.9247),
  'k32': (0.8662, 0.9676),
  'sum': (0.8635, 0.9671),
  'product': (0.8219, 0.9589),
}


def run(*arguments):
  """As users run it: on the devices there are, without the flags that the other tests set."""
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  subprocess.run([sys.executable, '-m', 'patch_svdd_jax', *arguments], env=environment, check=True)


@pytest.mark.slow
@pytest.mark.usefixtures('optimised')
def test_screw(shared_data, tmp_path):
  weights = shared_data / 'authors_checkpoints/screw/enchier.pkl'
  workdir = str(tmp_path / 'authors')
  run('import-authors', str(weights), '--workdir', workdir)
  arguments = [
    '--config=mvtec:screw',
    f'--config.data.root={shared_data / "mvtec_ad"}',
    f'--config.data.prepared={tmp_path / "prepared"}',
    '--config.data.resize=nearest',
    '--config.score.strides=(16,4)',
    '--no-random-encoder',
  ]
  run('eval', '--workdir', workdir, *arguments)
  maps = json.loads((tmp_path / 'authors/eval/metrics.json').read_text())['maps']
  measured = {name: (m['image_auroc'], m['pixel_auroc']) for name, m in maps.items()}
  assert measured.keys() == EXPECTED.keys()
  for name, figures in EXPECTED.items():
    assert measured[name] == pytest.approx(figures, abs=0.002), name
