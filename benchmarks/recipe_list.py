"""The recipes that were searched for a default: what is varied in training and in scoring.

Each states all that any of them varies, so that it stays what it is when defaults change; numbers
of steps are in units of the config's.
"""

from typing import Any

import ml_collections

from benchmarks.recipe_plan import Recipe

EMBEDDING: dict[str, Any] = {
  'score.features': ('embedding',),
  'score.whiten': False,
  'score.scale_weights': (),
}
HIDDEN = EMBEDDING | {'score.features': ('hidden',), 'score.whiten': True}
THUMBNAIL = HIDDEN | {'score.features': ('thumbnail',)}
BOTH = HIDDEN | {'score.features': ('hidden', 'thumbnail')}
ALL = HIDDEN | {'score.features': ('embedding', 'hidden', 'thumbnail')}
WITHOUT_HIDDEN = HIDDEN | {'score.features': ('embedding', 'thumbnail')}

# The authors' losses, with the light of photographs.
LOSSES: dict[str, Any] = {
  'encoder.init': 'uniform',
  'train.contrast': 0.0,
  'train.contrast_temperature': 0.2,
  'train.position_weight': 1.0,
  'train.augment.brightness': 0.08,
  'train.augment.gain': 0.1,
}
HE = LOSSES | {'encoder.init': 'he'}
CONTRAST = HE | {'train.contrast': 1.0}
# Less of the position task: folder.py's and laptop.py's.
DEFAULT = CONTRAST | {'train.position_weight': 0.3}
SAME_LIGHT = {'train.augment.brightness': 0.0, 'train.augment.gain': 0.0}


def get_recipes(config: ml_collections.ConfigDict) -> dict[str, Recipe]:
  """Returns the recipes by name."""
  scales = len(config.encoder.scales)
  # Each scale has half the exponent of the one below: the larger patches say less of pixels.
  weights = tuple(0.5**level for level in reversed(range(scales)))
  scorings = {
    'embedding': EMBEDDING,
    'hidden': HIDDEN,
    'hidden+thumbnail': BOTH,
    'all': ALL,
    'embedding+thumbnail': WITHOUT_HIDDEN,
    'weighted': ALL | {'score.scale_weights': weights},
  }
  steps = config.train.steps
  trainings = {
    'default': DEFAULT,
    'authors': LOSSES,
    'he': HE,
    'contrast': CONTRAST,
    'no-position': DEFAULT | {'train.position_weight': 0.0},
    'same-light': DEFAULT | SAME_LIGHT,
    **{f'contrast={weight:g}': DEFAULT | {'train.contrast': weight} for weight in (0.3, 3.0)},
    **{
      f'temperature={temperature:g}': DEFAULT | {'train.contrast_temperature': temperature}
      for temperature in (0.05, 0.1, 0.5)
    },
    **{
      f'{name}-{label}': recipe | {'train.steps': count}
      for name, recipe in (('authors', LOSSES), ('default', DEFAULT))
      for label, count in (('third', steps // 3), ('x3.3', 10 * steps // 3))
    },
  }
  return {
    'thumbnail': Recipe(LOSSES, {'whitened': THUMBNAIL}, trained=False),
    'untrained': Recipe(LOSSES, scorings, trained=False),
    'untrained-he': Recipe(HE, scorings, trained=False),
    **{name: Recipe(training, scorings) for name, training in trainings.items()},
  }
