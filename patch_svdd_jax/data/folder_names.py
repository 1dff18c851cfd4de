"""What the names of folders mean: their letters and digits alone count, in any case.

So 'GOOD', 'good ' and 'good_' mean good, and 'Ground-Truth' is the folder of masks.
"""

import re
import unicodedata
from typing import Literal

GOOD = 'good'
TRUTH = 'ground_truth'
GOOD_NAMES = (
  *(GOOD, 'ok', 'okay', 'normal', 'nominal', 'pass', 'passed', 'defectfree', 'nodefect'),
  *('nodefects', 'nondefective', 'anomalyfree', 'faultfree'),
)
# Those that come first are preferred.
TRUTH_NAMES = ('groundtruth', 'gt', 'masks', 'mask', 'truth')
ABNORMAL_NAMES = (
  *('abnormal', 'anomaly', 'anomalies', 'anomalous', 'bad', 'ng', 'nok', 'notok', 'ko', 'notgood'),
  *('defect', 'defects', 'defective', 'fault', 'faults', 'faulty', 'fail', 'failed', 'reject'),
  'rejected',
)
NORMAL_TEST_NAMES = (
  *(f'{name}test' for name in GOOD_NAMES),
  *(f'test{name}' for name in GOOD_NAMES),
)
# A region of interest beside the folders of a set, and a folder of them.
REGION, REGIONS = 'region.png', 'roi'
# What a folder holds that stands beside others, see `separate_folders`.
Role = Literal['normal', 'normal_test', 'abnormal', 'masks']
# What a type of defect is not usually called.
_LIKE_GOOD = re.compile(r'good|okay|normal|nominal|ok\d*$')
# What is called so beside train and test may have been meant.
_MEANT = ('train', 'test', 'val', 'eval', 'mask', 'truth', 'gt', 'label', 'good', 'annotation')


def meaning(name: str) -> str:
  """Returns the letters and digits of a name, without case."""
  folded = unicodedata.normalize('NFKC', name).casefold()
  return ''.join(character for character in folded if character.isalnum())


def means_good(name: str) -> bool:
  """Returns whether a folder's name says that the images inside are normal."""
  return meaning(name) in GOOD_NAMES


def resembles_good(name: str) -> bool:
  """Returns whether a name that does not mean good may have been meant so, as 'good_2'."""
  return not means_good(name) and _LIKE_GOOD.match(meaning(name)) is not None


def means_truth(name: str) -> bool:
  """Returns whether a folder's name says that masks are inside."""
  return meaning(name) in TRUTH_NAMES


def means_region(name: str) -> bool:
  """Returns whether a file or folder right inside a set holds regions of interest, no images."""
  return name.casefold() in (REGION, REGIONS)


def role(name: str) -> Role | None:
  """Returns what a folder's name says that it holds, beside others; None where it says nothing."""
  if means_good(name):
    return 'normal'
  if means_truth(name):
    return 'masks'
  if meaning(name) in NORMAL_TEST_NAMES:
    return 'normal_test'
  return 'abnormal' if meaning(name) in ABNORMAL_NAMES else None


def may_be_meant(name: str) -> bool:
  """Returns whether a folder may have been meant for train, test or masks."""
  return role(name) is not None or any(word in meaning(name) for word in _MEANT)
