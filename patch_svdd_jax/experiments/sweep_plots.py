"""Pictures of a sweep: AUROC of its groups, and over lambda, with confidence intervals."""

from collections.abc import Mapping
from typing import Any

from patch_svdd_jax.detection.anomaly_map import main_map
from patch_svdd_jax.evaluation.metrics import AUROCS
from patch_svdd_jax.experiments.sweep_statistics import CONFIDENCE, summarise
from patch_svdd_jax.system.figures import encode

TITLE = f'mean and {CONFIDENCE:.0%} confidence interval over seeds; dashed: untrained encoder'


def draw_groups(groups: Mapping[str, Any], suffix: str) -> bytes:
  """AUROC of each group's main map, beside each other, a colour for each lambda and rate."""
  from matplotlib.figure import Figure  # it draws without a screen

  settings = [each for each in summarise(groups) if each['maps']]
  names = list(dict.fromkeys(each['group'] for each in settings))
  kinds = list(dict.fromkeys((each['svdd_weight'], each['learning_rate']) for each in settings))
  figure = Figure(figsize=(11, 1.5 + 0.4 * max(4, len(names))), layout='constrained')
  panels = figure.subplots(1, 2, sharey=True)
  for panel, (metric, title) in zip(panels, AUROCS.items(), strict=True):
    for number, kind in enumerate(kinds):
      points = []
      for each in settings:
        interval = each['maps'][main_map(each['maps'])][metric]
        if (each['svdd_weight'], each['learning_rate']) == kind and interval.mean is not None:
          points.append((names.index(each['group']), interval))
      panel.errorbar(
        [interval.mean for _, interval in points],
        [row + 0.15 * number for row, _ in points],
        xerr=[interval.half_width or 0.0 for _, interval in points],
        fmt='o',
        capsize=3,
        color=f'C{number}',
        label=f'lambda {kind[0]:g}, rate {kind[1]:g}',
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
  return encode(figure, suffix)


def draw_weights(groups: Mapping[str, Any], suffix: str) -> bytes:
  """The lambda curve: AUROC of each group's main map over lambda, with confidence intervals.

  lambda = 0, which a logarithmic axis lacks, stands apart at its left end; the untrained encoder is
  a dashed line.
  """
  from matplotlib.figure import Figure  # it draws without a screen

  settings = summarise(groups)
  weights = sorted({setting['svdd_weight'] for setting in settings})
  positive = [weight for weight in weights if weight > 0]
  figure = Figure(figsize=(11, 4.5), layout='constrained')
  panels = figure.subplots(1, 2)
  for panel, (metric, title) in zip(panels, AUROCS.items(), strict=True):
    lines = list(dict.fromkeys((each['group'], each['learning_rate']) for each in settings))
    for number, (name, rate) in enumerate(lines):
      last = main_map(groups[name]['random_encoder'])
      of_line = [
        (each['svdd_weight'], each['maps'][last][metric])
        for each in settings
        if (each['group'], each['learning_rate']) == (name, rate) and each['maps']
      ]
      points = [(weight, interval) for weight, interval in of_line if interval.mean is not None]
      shown = f'{name}, rate {rate:g}, {last}'
      # The first call names the line; what stands apart is not joined to the rest.
      for part in ([p for p in points if p[0] > 0], [p for p in points if p[0] == 0]):
        if part:
          panel.errorbar(
            [weight for weight, _ in part],
            [interval.mean for _, interval in part],
            [interval.half_width or 0.0 for _, interval in part],
            marker='o',
            capsize=3,
            color=f'C{number}',
            label=shown,
          )
          shown = '_'
      untrained = groups[name]['random_encoder'][last][metric]
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
  handles = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
  if handles:
    figure.legend(handles.values(), handles.keys(), loc='outside lower center', fontsize='small')
  figure.suptitle(TITLE)
  return encode(figure, suffix)
