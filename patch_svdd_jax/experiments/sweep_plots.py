"""Pictures of a sweep: AUROC of its groups, and over lambda, with confidence intervals."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from patch_svdd_jax.detection.anomaly_map import main_map
from patch_svdd_jax.evaluation.metrics import AUROCS
from patch_svdd_jax.experiments.sweep_statistics import CONFIDENCE, Interval, summarise

if TYPE_CHECKING:
  from matplotlib.figure import Figure

TITLE = f'mean and {CONFIDENCE:.0%} confidence interval over seeds; dashed: untrained encoder'

Groups = Mapping[str, Any]


def points(
  groups: Groups, metric: str, keys: Sequence[str]
) -> Iterator[tuple[tuple[Any, ...], list[tuple[Mapping[str, Any], Interval]]]]:
  """Yields settings with the interval of their main map, for all that agree in these keys.

  A setting whose metric needs both classes, or whose members were all lost, is left out.
  """
  found: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Interval]]] = {}
  for each in summarise(groups):
    of_key = found.setdefault(tuple(each[key] for key in keys), [])
    maps = each['maps']
    if maps and (interval := maps[main_map(maps)][metric])['mean'] is not None:
      of_key.append((each, interval))
  yield from found.items()


def draw_groups(groups: Groups) -> 'Figure':
  """Draws the AUROC of each group beside the others, a colour for each lambda and rate."""
  from matplotlib.figure import Figure  # it draws without a screen

  names = list(dict.fromkeys(each['group'] for each in summarise(groups) if each['maps']))
  figure = Figure(figsize=(11, 1.5 + 0.4 * max(4, len(names))), layout='constrained')
  panels = figure.subplots(1, 2, sharey=True)
  for panel, (metric, title) in zip(panels, AUROCS.items(), strict=True):
    kinds = list(points(groups, metric, ('svdd_weight', 'learning_rate')))
    for number, ((weight, rate), found) in enumerate(kinds):
      panel.errorbar(
        [interval['mean'] for _, interval in found],
        [names.index(each['group']) + 0.15 * number for each, _ in found],
        xerr=[interval['half_width'] or 0.0 for _, interval in found],
        fmt='o',
        capsize=3,
        color=f'C{number}',
        label=f'lambda {weight:g}, rate {rate:g}',
      )
    for row, name in enumerate(names):
      maps = groups[name]['random_encoder']
      untrained = maps[main_map(maps)][metric]
      if untrained is not None:
        panel.plot([untrained] * 2, [row - 0.3, row + 0.45], 'k--', linewidth=1, alpha=0.6)
    panel.set(xlabel=title)
    panel.grid(alpha=0.3)
  panels[0].set_yticks(range(len(names)), names)
  panels[0].invert_yaxis()
  if 1 < len(kinds) <= 8:
    panels[1].legend(fontsize='small')
  figure.suptitle(TITLE)
  return figure


def draw_weights(groups: Groups) -> 'Figure':
  """Draws the lambda curve: AUROC of each group's main map over lambda.

  lambda = 0, which a logarithmic axis lacks, stands apart at its left end.
  """
  from matplotlib.figure import Figure  # it draws without a screen

  weights = sorted({setting['svdd_weight'] for setting in summarise(groups)})
  positive = [weight for weight in weights if weight > 0]
  figure = Figure(figsize=(11, 4.5), layout='constrained')
  panels = figure.subplots(1, 2)
  for panel, (metric, title) in zip(panels, AUROCS.items(), strict=True):
    for number, ((name, rate), found) in enumerate(
      points(groups, metric, ('group', 'learning_rate'))
    ):
      maps = groups[name]['random_encoder']
      main = main_map(maps)
      shown = f'{name}, rate {rate:g}, {main}'
      # The first call names the line; what stands apart is not joined to the rest.
      for apart in (False, True):
        part = [pair for pair in found if (pair[0]['svdd_weight'] == 0) == apart]
        if part:
          panel.errorbar(
            [each['svdd_weight'] for each, _ in part],
            [interval['mean'] for _, interval in part],
            [interval['half_width'] or 0.0 for _, interval in part],
            marker='o',
            capsize=3,
            color=f'C{number}',
            label=shown,
          )
          shown = '_'
      untrained = maps[main][metric]
      if untrained is not None:
        panel.axhline(untrained, color=f'C{number}', linestyle='--', linewidth=1, alpha=0.6)
    if positive:
      panel.set_xscale('symlog', linthresh=positive[0], linscale=0.5)
    if positive and weights[0] == 0:
      panel.axvspan(-positive[0] / 4, positive[0] / 4, color='0.93', zorder=0)
    panel.set_xticks(weights, [f'{weight:g}' for weight in weights], minor=False)
    panel.minorticks_off()
    panel.set(xlabel='lambda', ylabel=title)
    panel.grid(alpha=0.3)
  handles, labels = panels[0].get_legend_handles_labels()
  if handles:
    named = dict(zip(labels, handles, strict=True))
    figure.legend(named.values(), named.keys(), loc='outside lower center', fontsize='small')
  figure.suptitle(TITLE)
  return figure
