"""Turns an encoder that the authors trained, an `enchier.pkl`, into a model that eval accepts.

The file is read without PyTorch, and nothing in it can run. It holds no normal images: eval embeds
those of its config.

  patch-svdd import-authors checkpoints/screw/enchier.pkl --workdir runs/authors
  patch-svdd eval --workdir runs/authors --config mvtec:screw --config.data.root=DATA
"""

import argparse
import pathlib
from collections.abc import Sequence

from patch_svdd_jax import authors_weights, configuration
from patch_svdd_jax.checkpoints import Checkpoints
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `import-authors`."""
  parser.add_argument(
    'file', type=pathlib.Path, metavar='FILE.pkl', help="the authors' enchier.pkl"
  )
  parser.add_argument('--workdir', required=True, type=pathlib.Path, help='a new folder')


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Reads the file, then writes a workdir with an encoder and the authors' config."""
  if rest:
    raise UserError(f'unexpected argument {rest[0]!r}: see --help')
  params = authors_weights.encoder_params(options.file)
  workdir = options.workdir
  if (workdir / configuration.FILE).exists() or (workdir / 'checkpoints').exists():
    raise UserError(f'{workdir} holds a run already: name a new --workdir')
  config = default.get_config()
  config.encoder.embed_dim = len(params['level_32']['conv_7']['bias'])
  config.data.resize = 'nearest'
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save_encoder(params)
  configuration.save(config, workdir)
  print(f'{workdir}: imported; eval --workdir {workdir} --config CONFIG measures it')
  return 0
