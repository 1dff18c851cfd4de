"""The data report as people read it: a table of folders, and a line for each kind of finding."""

from collections.abc import Mapping

from patch_svdd_jax.data.report import DataReport, Group, Weight
from patch_svdd_jax.reporting.table import markdown

HEADER = ('folder', 'type', 'images', 'with a mask', 'turned', 'formats', 'sizes')
# Formats and sizes of a folder that are named.
SHOWN = 3
WEIGHTS: dict[Weight, str] = {
  'wrong': 'makes results wrong',
  'mind': 'to be looked at',
  'note': 'for information',
}


def row(group: Group) -> list[str]:
  """Returns what is known of a folder's images, as HEADER says."""
  masks = f'{group.masks:,}' if group.defect != 'good' else '-'
  return [
    group.folder,
    group.defect if group.split == 'test' else group.split,
    f'{group.images:,}',
    masks,
    f'{group.turned:,}',
    listed(group.formats),
    listed(group.sizes),
  ]


def listed(counts: Mapping[str, int]) -> str:
  """Returns the most frequent values, with how many there are where that is not clear."""
  if len(counts) == 1:
    return next(iter(counts))
  shown = [f'{number:,} {value}' for value, number in list(counts.items())[:SHOWN]]
  more = f' and {len(counts) - SHOWN} others' if len(counts) > SHOWN else ''
  return ', '.join(shown) + more


def render(report: DataReport, shown: int) -> str:
  """Returns the report as text, in which each kind of finding names so many cases at most."""
  parts = [markdown(HEADER, map(row, report.groups))] if report.groups else []
  for weight, title in WEIGHTS.items():
    if found := report.of_weight(weight):
      parts.append('\n'.join([f'{title}:', *(f'  {each.text(shown)}' for each in found)]))
  return '\n\n'.join(parts)
