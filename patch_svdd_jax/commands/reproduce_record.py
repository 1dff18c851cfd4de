"""What `reproduce` keeps in its workdir: the record that it goes on from, and the tables."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from patch_svdd_jax import configuration
from patch_svdd_jax.commands import console
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.experiments import reproduction
from patch_svdd_jax.system import files

FILE, TABLE, CSV = 'reproduce.json', 'reproduce.md', 'reproduce.csv'


@dataclasses.dataclass
class Record:
  """What reproduce.json holds.

  Attributes:
    configs: by column, that of the paper's first category: one stands for all.
    train: the config and keys to train with, as they were given; '' before anything is trained.
    categories: how far each category has come, by column, see `reproduction.Entries`.
  """

  configs: dict[str, ml_collections.ConfigDict]
  train: str
  categories: dict[str, dict[str, dict[str, Any]]]

  def entry(self, category: str, column: str) -> dict[str, Any]:
    """How far a category has come in a column; nothing before its turn."""
    return self.categories.get(category, {}).get(column, {})


def read(
  workdir: pathlib.Path, configs: Mapping[str, ml_collections.ConfigDict], train: str
) -> Record:
  """The record of the workdir, which goes on with these configs.

  Raises:
    UserError: it was started with others, or is no record.
  """
  path = workdir / FILE
  if not path.exists():
    return Record(dict(configs), train, {})
  try:
    contents = json.loads(path.read_text())
    before = {
      column: configuration.from_json(json.dumps(config), str(path))
      for column, config in contents['configs'].items()
    }
    train = train or contents['train']
    categories = {
      category: {column: entries[column] for column in reproduction.COLUMNS if column in entries}
      for category, entries in contents['categories'].items()
    }
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f'{path} is no file of reproduce: use another --workdir') from error
  for column in configs.keys() & before.keys():
    configuration.check_unchanged(
      before[column], configs[column], workdir, configuration.WITHOUT_EFFECT
    )
  return Record(before | dict(configs), train, categories)


def cell(entry: Mapping[str, Any] | None) -> str:
  """The figures, or why there are none; a dash where none were asked for, or not yet."""
  found = reproduction.aurocs(entry)
  return entry['status'] if entry and found is None else console.aurocs(found)


def render(record: Record) -> str:
  """The table and what there is to say about it, as Markdown."""
  columns = (reproduction.PAPER, *reproduction.COLUMNS)
  rows = [
    [category, *(cell(entries.get(column)) for column in columns)]
    for category, entries in reproduction.beside_paper(record.categories).items()
  ]
  rows += [
    [mean.name, *(console.aurocs(mean.columns[column]) for column in columns)]
    for mean in reproduction.means(record.categories)
  ]
  header = ['category', 'paper det / seg', *reproduction.COLUMNS.values()]
  return '\n\n'.join([console.table(header, rows), *notes(record)])


def notes(record: Record) -> list[str]:
  """Paragraphs below the table."""
  found = ['Image / pixel AUROC, of the product of the maps.']
  if record.train:
    found.append(f'Trained here: `{record.train}`.')
  lacking = {reproduction.NO_DATA: 'No data', reproduction.NO_WEIGHTS: 'No weights of the authors'}
  for status, title in lacking.items():
    names = dict.fromkeys(name for name, _ in reproduction.of_status(record.categories, status))
    if names:
      found.append(f'{title}: {", ".join(names)}.')
  failed = [
    f'- {category}, {reproduction.COLUMNS[column]}: {record.categories[category][column]["error"]}'
    for category, column in reproduction.of_status(record.categories, reproduction.FAILED)
  ]
  return [*found, '\n'.join(['Failed:', '', *failed])] if failed else found


def write(workdir: pathlib.Path, record: Record) -> None:
  """Writes the record and both tables."""
  contents = {
    'configs': {column: config.to_dict() for column, config in record.configs.items()},
    'train': record.train,
    'categories': reproduction.beside_paper(record.categories),
    'means': [mean._asdict() for mean in reproduction.means(record.categories)],
  }
  files.write_json(workdir / FILE, contents)
  files.write(workdir / TABLE, f'{render(record)}\n'.encode())
  files.write(workdir / CSV, reproduction.to_csv(record.categories).encode())
