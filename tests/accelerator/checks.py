"""What an accelerator must get right, and how fast it is; each check gives lines for a table."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh

from patch_svdd_jax import data
from patch_svdd_jax.benchmarking import programs, scaling
from patch_svdd_jax.benchmarking.scaling import Limits
from patch_svdd_jax.configs import default, mvtec
from patch_svdd_jax.detection.detector import Detector
from patch_svdd_jax.evaluation.evaluate import evaluate
from patch_svdd_jax.models import authors_weights, mean_image
from patch_svdd_jax.search import memory_bank, nearest
from patch_svdd_jax.system import sharding
from patch_svdd_jax.system.sharding import DEVICES
from patch_svdd_jax.training import loop, train_state, train_step
from tests.support import banks

# Of the screws: as many normal images, spread over all, and every so many-th test image.
NORMAL, EVERY = 20, 4
# Image and pixel AUROC of these, by tests/accelerator/float64.py.
SCREW = {
  'k64': (0.9436, 0.8988),
  'k32': (0.9843, 0.9514),
  'sum': (0.9875, 0.9507),
  'product': (0.9687, 0.9396),
}
# Of 319 pairs of an image with a defect and one without, two may come to stand otherwise.
IMAGE_TOLERANCE, PIXEL_TOLERANCE = 2.1 / 319, 0.001
# A TPU's float64 has float32's range of exponents.
BEYOND_FLOAT32 = (banks.tiny_values, banks.large_values)


class Sizes(NamedTuple):
  """How much is measured.

  Attributes:
    config: whose step and images are timed.
    rows: of the memory bank that is searched.
    queries: of an image.
    batches: of the train step.
    seconds: that the rounds of each take.
  """

  config: ml_collections.ConfigDict
  rows: int
  queries: int
  batches: tuple[int, ...]
  seconds: float


def exact_search():
  """Distances and rows are those of float64, on hard banks and on a large one."""
  on_tpu = jax.default_backend() == 'tpu'
  cases = [banks.make(kind) for kind in banks.HARD if not (on_tpu and kind in BEYOND_FLOAT32)]
  cases.append(few_directions(30_000, 200))
  for rows, queries in cases:
    k = min(3, len(rows))
    found = nearest.search(jnp.asarray(queries), memory_bank.from_rows(rows), k)
    banks.check(queries, found, banks.brute_force(queries, rows, k))
  count = sum(len(queries) for _, queries in cases)
  return [('search against float64', f'{len(cases)} banks, {count:,} queries: the very rows')]


def few_directions(rows, queries, dim=64):
  """Vectors f32[N, 64] and f32[Q, 64] as embeddings are: most variance lies in few directions."""
  rng = np.random.default_rng(0)
  axes = rng.standard_normal((8, dim), np.float32)

  def draw(count):
    along = rng.standard_normal((count, 8), np.float32) @ axes
    return along + 0.03 * rng.standard_normal((count, dim), np.float32)

  return draw(rows), draw(queries)


def screws(shared_data, prepared):
  """The authors' encoder, normal images u8[N, H, W, 3] and the test images of a part of them."""
  config = mvtec.get_config('screw')
  root = str(shared_data / 'mvtec_ad')
  config.data.update(root=root, prepared=str(prepared), normal_images=NORMAL)
  loaded = data.load(config.data)
  test = loaded.test.take(np.arange(0, len(loaded.test), EVERY))
  params = authors_weights.encoder_params(shared_data / 'authors_checkpoints/screw/enchier.pkl')
  return config, params, loaded.train.images, test


def screw_figures(shared_data, prepared):
  """The authors' weights give the figures of float64 on some of their images."""
  config, params, normal, test = screws(shared_data, prepared)
  detector = Detector.fit(config, params, normal, step=0)
  maps = evaluate(detector, test).maps
  lines = []
  for name, (image, pixel) in SCREW.items():
    found = maps[name]['image_auroc'], maps[name]['pixel_auroc']
    assert abs(found[0] - image) <= IMAGE_TOLERANCE, (name, found)
    assert abs(found[1] - pixel) <= PIXEL_TOLERANCE, (name, found)
    text = f'{found[0]:.4f} / {found[1]:.4f} (float64: {image:.4f} / {pixel:.4f})'
    lines.append((f'screw, {name}: image / pixel AUROC of {len(test)} images', text))
  return lines


def same_training(sizes):
  """Three steps on all devices are those of one CPU device: losses, and where parameters move."""
  config = sizes.config.copy_and_resolve_references()
  config.train.update(steps=3, steps_per_call=1, batch_size=8 * jax.device_count())
  here = steps_on(config, sharding.all_devices())
  there = steps_on(config, Mesh(np.array(jax.devices('cpu')[:1]), (DEVICES,)))
  worst = 0.0
  for found, expected in zip(here[1], there[1], strict=True):
    for name in ('loss', *(name for name in expected if '_loss/' in name)):
      apart = abs(found[name] - expected[name]) / abs(expected[name])
      assert apart < 1e-4, (name, found[name], expected[name])
      worst = max(worst, float(apart))
  moved, difference = (
    np.concatenate([np.ravel(a - b) for a, b in zip(here[0][-1], other, strict=True)])
    for other in (here[0][0], there[0][-1])
  )
  share = float(np.linalg.norm(difference) / np.linalg.norm(moved))
  # Adam divides a gradient by its size: where that is nearly 0, the last bit decides.
  assert np.linalg.norm(moved) > 0
  assert share < 0.02, share
  text = f'losses within {worst:.1g} of themselves, parameters within {share:.1g} of their way'
  return [('3 train steps against a CPU', text)]


def steps_on(config, mesh):
  """The leaves of the parameters before each step and after the last, and the metrics of each."""
  rng = np.random.default_rng(0)
  images = rng.integers(256, size=(8, *config.data.image_size, 3), dtype=np.uint8)
  mean = mean_image.training_mean(images, config.train.mean)
  inputs = loop.place_inputs(config, images, mean, mesh)
  state = sharding.place(jax.device_get(train_state.init_state(config)), mesh)
  step = train_step.make_train_step(config, len(images), mesh)
  params, metrics = [jax.device_get(jax.tree.leaves(state.params))], []
  for _ in range(config.train.steps):
    state, found = step(state, *inputs)
    params.append(jax.device_get(jax.tree.leaves(state.params)))
    metrics.append(jax.device_get(found))
  return params, metrics


def embedding_speed(sizes):
  """Milliseconds of an image on all devices."""
  program = programs.prepare_embedding(sizes.config)
  programs.warm_up(program)
  seconds = median_seconds(program.call, sizes.seconds) / program.steps
  size = 'x'.join(map(str, sizes.config.data.image_size))
  text = f'{1e3 * seconds:.3g} ms an image, {program.flops / seconds / 1e9:,.4g} GFLOP/s'
  return [(f'embedding of {size} pixels', text)]


def search_speed(sizes):
  """Milliseconds of an image's queries."""
  rows, queries = few_directions(sizes.rows, sizes.queries)
  bank, on_device = memory_bank.from_rows(rows), jnp.asarray(queries)

  def call():
    return jax.block_until_ready(nearest.search(on_device, bank).distances)

  call()
  seconds = median_seconds(call, sizes.seconds)
  flop = 2.0 * queries.shape[0] * rows.size
  text = f'{1e3 * seconds:.3g} ms an image, {flop / seconds / 1e9:,.4g} GFLOP/s of a whole product'
  return [(f'search of {len(queries):,} queries among {len(rows):,} rows', text)]


def training_speed(sizes):
  """Pairs a second of the train step on all devices, in both types."""
  lines = []
  for compute in ('float32', 'bfloat16'):
    config = sizes.config.copy_and_resolve_references()
    config.train.compute = compute
    rows = scaling.measure(
      config, [jax.device_count()], sizes.batches, Limits(5, sizes.seconds), lambda _: iter
    )
    for row in rows:
      assert row.pairs_per_s, row.why_not
      text = f'{row.pairs_per_s:,.4g} pairs/s, {row.utilisation:.1%} of peak'
      lines.append((f'train step of {row.batch:,} pairs in {compute}', text))
  return lines


def median_seconds(call, seconds):
  """The median of calls for so long, three at least."""
  taken, end = [], time.perf_counter() + seconds
  while len(taken) < 3 or time.perf_counter() < end:
    start = time.perf_counter()
    call()
    taken.append(time.perf_counter() - start)
  return float(np.median(taken))


def full_sizes():
  """Those of the authors' settings, for an accelerator."""
  return Sizes(default.get_config(), rows=1_039_680, queries=3249, batches=(64, 1024), seconds=5)
