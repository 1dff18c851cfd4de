"""What an evaluation leaves in its folder: report.html, metrics.json, maps, pictures."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from patch_svdd_jax.data import Split, report
from patch_svdd_jax.data.duplicates import Duplicate
from patch_svdd_jax.data.images import MASK_RULE
from patch_svdd_jax.evaluation.aupimo import distribution
from patch_svdd_jax.evaluation.evaluate import Evaluation, defects_outside
from patch_svdd_jax.evaluation.training_gain import TrainingGain
from patch_svdd_jax.reporting import checkpoint_table, html, overlays, speed
from patch_svdd_jax.reporting.compared import FULL_BANK
from patch_svdd_jax.reporting.html import evaluated
from patch_svdd_jax.reporting.html.evaluated import ReportContext
from patch_svdd_jax.search import coreset
from patch_svdd_jax.system import figures, files, npz


def summary(
  split: Split,
  evaluation: Evaluation,
  others: Mapping[str, Evaluation],
  checkpoints: Sequence[checkpoint_table.CheckpointRow] = (),
  copies: Sequence[Duplicate] = (),
  gain: TrainingGain | None = None,
) -> dict[str, Any]:
  """Returns the contents of metrics.json; of the others, by name, the metrics."""
  contents = _figures(evaluation) | {
    'aupimo': distribution(evaluation.aupimo[evaluation.main_map]),
    'timing': evaluation.timing,
  }
  if thresholds := evaluation.thresholds:
    contents['thresholds'] = thresholds.to_json() | {'mask_rule': MASK_RULE}
  if stages := evaluation.stages:
    contents['speed'] = speed.to_json(speed.one_after_another(stages), stages)
  contents |= {name: _figures(other) for name, other in others.items()}
  if FULL_BANK in others:
    contents['coreset'] = reduction(evaluation, others[FULL_BANK])
  if checkpoints:
    contents['checkpoints'] = [row._asdict() for row in checkpoints]
  if copies:
    contents['duplicates'] = [pair._asdict() for pair in copies]
  if gain:
    contents['training_gain'] = gain._asdict()
  if split.regions is not None:
    contents['region'] = {
      'share_of_pixels': float(split.regions.mean()),
      'defects_outside': defects_outside(split),
    }
  contents['images'] = of_images(split, evaluation)
  figures: dict[str, Any] = files.to_json(contents)
  return figures


def _figures(evaluation: Evaluation) -> dict[str, Any]:
  found: dict[str, Any] = {
    'main_map': evaluation.main_map,
    'maps': evaluation.maps,
    'per_defect': evaluation.per_defect,
  }
  for name in ('per_category', 'per_lighting'):
    if figures := getattr(evaluation, name):
      found[name] = figures
  return found


def of_images(split: Split, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
  """Returns what is known of each image by its name; the main map's score and AUPIMO."""
  name = evaluation.main_map
  columns = split.defects, split.digests, evaluation.scores.images[name], evaluation.aupimo[name]
  keys = 'defect', 'digest', 'score', 'aupimo'
  return {
    image: dict(zip(keys, values, strict=True))
    for image, *values in zip(split.names, *columns, strict=True)
  }


def reduction(evaluation: Evaluation, full: Evaluation) -> dict[str, dict[str, float]]:
  """Returns the cost of the smaller bank: how much farther its nearest rows are, by scale."""
  return {
    name: coreset.distance_error(full.scores.distances[name].ravel(), distances.ravel())
    for name, distances in evaluation.scores.distances.items()
  }


def write_evaluation(
  folder: pathlib.Path,
  split: Split,
  evaluation: Evaluation,
  others: Mapping[str, Evaluation],
  context: ReportContext,
  checkpoints: Sequence[checkpoint_table.CheckpointRow] = (),
) -> None:
  """Writes everything into `folder`: report.html, metrics.json, maps.npz and the pictures.

  These are overlays/ and overview.png, and checkpoints.png where checkpoints were compared.

  maps.npz holds each map as f32[N, H, W] and each image score as `<map>_score` f32[N], with
  `names`, `labels` and `defects`. Pictures and the report show the main map.

  Args:
    folder: where to write.
    split: the N images that were scored.
    evaluation: of them.
    others: what it is compared with, by name.
    context: what else the report shows.
    checkpoints: that were compared.

  Raises:
    UserError: a file cannot be written.
  """
  with files.explained(folder):
    folder.mkdir(parents=True, exist_ok=True)
    _remove_older(folder)
  write_maps(folder / 'maps.npz', split, evaluation)
  if len(split):
    maps = evaluation.scores.maps[evaluation.main_map]
    # Outside of regions maps are 0: where most pixels lie there, so would be the median.
    limits = overlays.colour_limits(maps if split.regions is None else maps[split.regions])
    _write_pictures(folder, split, evaluation, limits)
    page = evaluated.make(split, evaluation, others, limits, context)
    html.write(folder / 'report.html', page)
  if checkpoints:
    files.write(
      folder / 'checkpoints.png', figures.encode(checkpoint_table.draw(checkpoints), 'png')
    )
  if context.data.groups:
    files.write_json(folder / report.FILE, context.data.to_json())
  # Last: where metrics.json is, the rest is whole.
  contents = summary(split, evaluation, others, checkpoints, context.copies, context.gain)
  files.write_json(folder / 'metrics.json', contents)


def _remove_older(folder: pathlib.Path) -> None:
  """Removes what an older evaluation left: its figures and pictures are not those of new maps."""
  names = 'metrics.json', 'report.html', 'checkpoints.png', 'overview.png', report.FILE
  for name in names:
    (folder / name).unlink(missing_ok=True)
  pictures = folder / 'overlays'
  # Through a link too, which may lead to a larger disk.
  for path in sorted(pictures.rglob('*'), reverse=True):
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
  # Last, for it shows whose the pictures are.
  (folder / 'maps.npz').unlink(missing_ok=True)


def _write_pictures(
  folder: pathlib.Path, split: Split, evaluation: Evaluation, limits: tuple[float, float]
) -> None:
  name = evaluation.main_map
  maps, scores = evaluation.scores.maps[name], evaluation.scores.images[name]
  overlays.write_overlays(folder / 'overlays', split, maps, limits)
  overview = overlays.draw_overview(split, maps, scores, limits)
  overlays.write_overview(folder / 'overview.png', overview)


def write_maps(path: pathlib.Path, split: Split, evaluation: Evaluation) -> None:
  """Writes maps and scores as one compressed npz."""
  arrays: dict[str, Any] = dict(evaluation.scores.maps)
  arrays |= {f'{name}_score': scores for name, scores in evaluation.scores.images.items()}
  arrays |= {
    'names': np.array(split.names),
    'labels': split.labels,
    'defects': np.array(split.defects),
  }
  npz.write(path, arrays)
