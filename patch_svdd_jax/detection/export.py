"""A detector as one file that runs without this package: StableHLO for jax, or ONNX."""

import jax
import jax.numpy as jnp

from patch_svdd_jax.detection import exported_score
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.detection.inspection import Limits
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models.convolution import plain_conv

PLATFORMS = ('cpu', 'cuda', 'tpu')

# Flatbuffers and protobufs end at 2 GiB; below this there is room for the program.
LIMIT = 2_000_000_000


def check_size(detector: Detector) -> None:
  """Refuses what does not fit into one file.

  Raises:
    UserError: says which share of the memory bank does.
  """
  encoder = 4 * sum(leaf.size for leaf in jax.tree.leaves((detector.params, detector.mean)))
  banks = 4 * sum(bank.size * bank.dim for bank in detector.banks.values())
  if encoder + banks > LIMIT:
    share = detector.config.score.coreset * (LIMIT - encoder) / banks
    raise UserError(
      f'the detector has {(encoder + banks) / 1e9:.1f} GB of numbers, and one file holds '
      f'{LIMIT / 1e9:.1f} GB: run `patch-svdd build-bank` with config.score.coreset below '
      f'{share:.2g}'
    )


def to_stablehlo(detector: Detector, limit: Limits | None) -> bytes:
  """Returns `exported_score.make_score` as bytes for `jax.export.deserialize`, for any batch size.

  Raises:
    UserError: the detector cannot be exported.
  """
  check_size(detector)
  score = jax.jit(exported_score.make_score(detector, limit, tile=detector.config.score.tile))
  (batch,) = jax.export.symbolic_shape('batch')
  images = jax.ShapeDtypeStruct((batch, *detector.config.data.image_size, 3), jnp.uint8)
  return bytes(jax.export.export(score, platforms=PLATFORMS)(images).serialize())


def to_onnx(detector: Detector, limit: Limits | None) -> bytes:
  """Returns an ONNX model with the input 'images' and an output of each result's name.

  Raises:
    UserError: the detector cannot be exported, or the converter is not installed.
  """
  check_size(detector)
  try:
    import jax2onnx
  except ImportError as error:
    raise UserError("jax2onnx is missing: pip install 'patch_svdd_jax[onnx]'") from error
  # Whole images: the converter cannot nest the loop over tiles in that over images.
  score = exported_score.make_score(detector, limit, convolve=plain_conv)
  shape = (*detector.config.data.image_size, 3)
  one = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
  model = jax2onnx.to_onnx(
    score,
    [jax.ShapeDtypeStruct(('batch', *shape), jnp.uint8)],
    model_name='patch_svdd',
    input_names=['images'],
    # In the order in which jax lists a dict's values.
    output_names=sorted(jax.eval_shape(score, one)),
  )
  return bytes(model.SerializeToString())
