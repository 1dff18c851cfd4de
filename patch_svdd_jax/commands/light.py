"""Says how a detector takes other light, by held-out normal images that are relit; no label needed.

The images are those that `config.data.held_out` kept from training. Each is made darker, brighter,
of less and of more contrast; an AUROC of .5 says that the scores do not tell relit images from the
same ones as they are, 1 that every relit image would be a false alarm. Where the names of test
images say what light they were taken in, as in MVTec AD 2, the normal ones of each light are told
from those in the light of training.

  patch-svdd light --workdir runs/parts
"""

import argparse
from collections.abc import Sequence

from patch_svdd_jax import configuration, data
from patch_svdd_jax.commands import console
from patch_svdd_jax.data.lighting import REGULAR
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.evaluation import light_sensitivity
from patch_svdd_jax.evaluation.light_sensitivity import Lighting, Sensitivity
from patch_svdd_jax.experiments.evaluation_run import check_data
from patch_svdd_jax.reporting.table import markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `light`."""
  parser.add_argument('--workdir', required=True, type=console.path, help='folder of the run')


def run(options: argparse.Namespace) -> int:
  """Scores and prints."""
  dataset = data.load(configuration.load(options.workdir).data)
  check_data(options.workdir, dataset)
  images = dataset.held_out.images
  if not (len(images) or dataset.lights):
    raise UserError(
      f'{options.workdir}: no normal image was held out: train with config.data.held_out, as 0.1'
    )
  detector = Detector.load(options.workdir)
  if len(images):
    found = light_sensitivity.measure_sensitivity(
      detector, images, console.progress('Scoring'), dataset.held_out.regions
    )
    print(markdown(*table(found)))
    print(f'{len(images)} held-out normal images; AUROC of relit against unchanged ones.')
  if dataset.lights:
    progress = console.progress('Scoring test images')
    found = light_sensitivity.measure_lights(detector, dataset.test, dataset.lights, progress)
    print(markdown(*table(found)))
    print(f'Normal test images; AUROC of each light against {REGULAR}.')
  return 0


def table(found: Sequence[Sensitivity]) -> tuple[list[str], list[list[str]]]:
  """Returns the header and a line for each change of light."""
  lines = [[title(lighting), f'{auroc:.3f}', f'{ratio:.3f}'] for lighting, auroc, ratio in found]
  return ['light', 'AUROC', 'median score, relit / unchanged'], lines


def title(lighting: Lighting | str) -> str:
  """Returns the name of a light, or what was changed, in words."""
  if isinstance(lighting, str):
    return lighting
  if lighting.shift:
    return f'{lighting.shift:+g} grey levels'
  return f'contrast x {lighting.gain:g}'
