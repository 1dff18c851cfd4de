"""What the paper reports on MVTec AD, as data.

Yi & Yoon, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV 2020, arXiv
2006.16067, its results by class: the product of the maps of K=64 and K=32.
"""

from typing import NamedTuple


class Aurocs(NamedTuple):
  """Anomaly detection (image AUROC) and anomaly segmentation (pixel AUROC)."""

  image_auroc: float
  pixel_auroc: float


RESULTS = {
  'bottle': Aurocs(0.986, 0.981),
  'cable': Aurocs(0.903, 0.968),
  'capsule': Aurocs(0.767, 0.958),
  'carpet': Aurocs(0.929, 0.926),
  'grid': Aurocs(0.946, 0.962),
  'hazelnut': Aurocs(0.920, 0.975),
  'leather': Aurocs(0.909, 0.974),
  'metal_nut': Aurocs(0.940, 0.980),
  'pill': Aurocs(0.861, 0.951),
  'screw': Aurocs(0.813, 0.957),
  'tile': Aurocs(0.978, 0.914),
  'toothbrush': Aurocs(1.000, 0.981),
  'transistor': Aurocs(0.915, 0.970),
  'wood': Aurocs(0.965, 0.908),
  'zipper': Aurocs(0.979, 0.951),
}
