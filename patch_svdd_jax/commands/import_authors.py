"""Turns an encoder that the authors trained, an `enchier.pkl`, into a model that eval accepts.

The file is read without PyTorch, and nothing in it can run. It holds no normal images: eval embeds
those of its config.

  patch-svdd import-authors checkpoints/screw/enchier.pkl --workdir runs/authors
  patch-svdd eval --workdir runs/authors --config mvtec:screw --config.data.root=DATA
"""

import argparse
import pathlib

import ml_collections

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import console
from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import authors_weights
from patch_svdd_jax.training.checkpoints import Checkpoints


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `import-authors`."""
  parser.add_argument(
    'file', type=console.path, metavar='FILE.pkl', help="the authors' enchier.pkl"
  )
  parser.add_argument('--workdir', required=True, type=console.path, help='a new folder')


def import_weights(
  file: pathlib.Path, config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
  """Writes a workdir with the encoder of a file.

  Args:
    file: an `enchier.pkl`.
    config: the workdir's, but for the dimension D of the embeddings, which the file says.
    workdir: a new folder.

  Returns:
    The workdir's config.

  Raises:
    UserError: the file cannot be read, or the workdir holds a run.
  """
  params = authors_weights.encoder_params(file)
  if (workdir / configuration.FILE).exists() or (workdir / 'checkpoints').exists():
    raise UserError(f'{workdir} holds a run already: name a new --workdir')
  config = config.copy_and_resolve_references()
  config.encoder.embed_dim = len(params['level_32']['conv_7']['bias'])
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save_encoder(params)
  configuration.save(config, workdir)
  return config


def run(options: argparse.Namespace) -> int:
  """Reads the file, then writes a workdir with an encoder and the authors' config."""
  workdir = options.workdir
  config = default.get_config()
  config.data.resize = 'nearest'
  import_weights(options.file, config, workdir)
  print(f'{workdir}: imported; eval --workdir {workdir} --config CONFIG measures it')
  return 0
