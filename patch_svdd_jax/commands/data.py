"""Says what a data set consists of, what of it is read, and what is wrong with it, all at once.

A table shows, folder by folder, how many images and masks there are, their formats, depths and
sizes, and how many are turned by EXIF. Below stand all files that are not read, with why, masks
without an image and images without a mask, masks that are empty, inverted, tiny or otherwise odd,
and files that are damaged. Where config.data.region names a region of interest, a line says how
much of the images it is, and how many patches of each scale count in it. Nothing is trained or
changed.

The exit status is 1 where something makes results wrong. train and eval say the same in a few
lines each time.

  patch-svdd data --config folder:parts
  patch-svdd data --config mvtec:screw --config.data.root=DATA --json screw.json
"""

import argparse
from collections.abc import Sequence

import ml_collections
import numpy as np

from patch_svdd_jax import config_rules, data
from patch_svdd_jax.commands import console, outputs
from patch_svdd_jax.data import categories, sources
from patch_svdd_jax.data.dataset import is_fixed
from patch_svdd_jax.errors import one_line
from patch_svdd_jax.models import judged_patches
from patch_svdd_jax.models.architecture import strides_of
from patch_svdd_jax.models.geometry import patch_count
from patch_svdd_jax.reporting import data_tables
from patch_svdd_jax.system import files

# Cases of a kind that are named; --json has all.
SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the options of `data`."""
  console.add_config_argument(parser, required=True)
  parser.add_argument('--json', type=console.path, metavar='FILE', help='all of it as JSON')


def run(options: argparse.Namespace, rest: Sequence[str]) -> int:
  """Inspects, prints, writes."""
  whole = config_rules.read(options.config, rest, training=False)
  config = whole.data
  if options.json:
    files.check_writable(options.json)
  several = sources.names_every(config) or config.category == categories.MULTICLASS
  names = sources.present(config) if several else [config.category]
  if several and (others := sources.passed_over(config)):
    console.print_warnings([others])
  found = {name: data.inspect(data.of_category(config, name)) for name in names}
  reports = {name: report for name, (report, _) in found.items()}
  for name, (report, dataset) in found.items():
    if report.form:
      print(one_line(f'{sources.title(config, name)}: {report.form}'))
    print(f'{sources.title(config, name)}: {report.summary() or "no files to report on"}\n')
    if dataset and dataset.train.regions is not None:
      print(region_line(data.resolved(whole, dataset), dataset.train.regions) + '\n')
    if report.groups or report.findings:
      print(data_tables.render(report, SHOWN) + '\n')
  wrong = [each for report in reports.values() for each in report.of_weight('wrong')]
  if wrong:
    print(f'{len(wrong)} kinds of problems make results wrong')
  else:
    print('nothing was found that makes results wrong')
  contents = {name: report.to_json() for name, report in reports.items()}
  outputs.write_json(options.json, contents if several else contents[names[0]])
  return 1 if wrong else 0


def region_line(config: ml_collections.ConfigDict, regions: np.ndarray) -> str:
  """Returns a line on training images' regions: their share, and the patches that count in it.

  Args:
    config: the whole config.
    regions: bool[N, H, W].
  """
  own = '' if is_fixed(regions) else f', one of each of {len(regions):,} training images'
  distinct = regions[:1] if is_fixed(regions) else regions
  patches = '; '.join(
    f'K={k} {found:,} of {len(distinct) * patch_count(regions.shape[1:], k, stride):,}'
    for (k, found), stride in zip(
      judged_patches.counts(config, regions).items(), strides_of(config).values(), strict=True
    )
  )
  missed = judged_patches.warning(config, regions)
  return f'region{own}: {distinct.mean():.1%} of the pixels; patches that count: {patches}' + (
    f'; {missed}' if missed else ''
  )
