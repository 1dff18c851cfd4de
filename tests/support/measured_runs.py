"""What `eval` leaves of runs, without the runs."""

import json

import numpy as np
from sklearn.metrics import roc_auc_score

from patch_svdd_jax.evaluation.metrics import TITLES
from patch_svdd_jax.system import npz

NORMAL, ANOMALOUS = 12, 18
NAMES = [f'test/good/{i:03}.png' for i in range(NORMAL)]
NAMES += [f'test/hole/{i:03}.png' for i in range(ANOMALOUS)]


def contents(seed, shift=1.0, names=NAMES):
  """A metrics.json of scores that tell classes apart by so many deviations; one has no mask."""
  rng = np.random.default_rng(seed)
  defects = [name.split('/')[-2] for name in names]
  labels = np.array([defect != 'good' for defect in defects])
  scores, aupimo = rng.normal(shift * labels), rng.uniform(size=len(names))
  figures = dict(zip(TITLES, rng.uniform(size=len(TITLES)), strict=True))
  figures['image_auroc'] = roc_auc_score(labels, scores)
  figures['aupimo'] = float(np.mean(aupimo[labels][1:]))
  first = int(np.argmax(labels))
  images = {
    name: {
      'defect': defect,
      'digest': f'digest of {name}',
      'score': score,
      'aupimo': value if label and index != first else None,
    }
    for index, (name, defect, label, score, value) in enumerate(
      zip(names, defects, labels, scores.tolist(), aupimo.tolist(), strict=True)
    )
  }
  return {'main_map': 'product', 'maps': {'product': figures}, 'images': images}


def write(folder, metrics, size=(16, 24)):
  """Writes it, with maps of a size; returns the folder."""
  (folder / 'eval').mkdir(parents=True)
  (folder / 'eval' / 'metrics.json').write_text(json.dumps(metrics))
  maps = np.zeros((len(metrics['images']), *size), np.float32)
  npz.write(folder / 'eval' / 'maps.npz', {metrics['main_map']: maps})
  return folder


def write_all(folder, metrics_by_category):
  """Writes a workdir of all categories; returns it."""
  for category, metrics in metrics_by_category.items():
    write(folder / category, metrics)
  (folder / 'categories.json').write_text(json.dumps(metrics_by_category))
  return folder
