"""Tiny imitations of what the published data sets' official downloads contain."""

import dataclasses
import pathlib

import numpy as np

from tests.support.categories import HEIGHT, WIDTH, pixels, save


@dataclasses.dataclass
class Download:
  """A folder, and what is to be found in it.

  Attributes:
    root: the folder.
    category: what to load of it.
    train, validation: names of the images.
    test: name of each image to (defect, mask).
  """

  root: pathlib.Path
  category: str
  train: list[str] = dataclasses.field(default_factory=list)
  validation: list[str] = dataclasses.field(default_factory=list)
  test: dict[str, tuple[str, np.ndarray]] = dataclasses.field(default_factory=dict)

  @property
  def folder(self) -> pathlib.Path:
    return self.root if self.category == 'all' else self.root / self.category

  def image(self, name: str) -> str:
    save(self.folder / name, pixels(len(list(self.root.rglob('*')))))
    return name

  def normal(self, place: str, suffix='png') -> list[str]:
    return [self.image(f'{place}/{i:03}.{suffix}') for i in range(3)]

  def good(self, name: str) -> str:
    self.test[self.image(name)] = 'good', np.zeros((HEIGHT, WIDTH), bool)
    return name

  def bad(self, name: str, defect: str, *masks: str, value=255) -> None:
    """A defective image; each of its masks marks another row."""
    union = np.zeros((HEIGHT, WIDTH), bool)
    for row, mask in enumerate(masks, 1):
      part = np.zeros((HEIGHT, WIDTH), np.uint8)
      part[row, 2:6] = value
      save(self.folder / mask, part)
      union |= part > 0
    self.test[self.image(name)] = defect, union


def empty_mask(path: pathlib.Path) -> None:
  save(path, np.zeros((HEIGHT, WIDTH), np.uint8))


def mvtec(root: pathlib.Path) -> Download:
  made = Download(root, 'screw')
  made.train = made.normal('train/good')
  made.good('test/good/000.png')
  made.bad('test/scratch/000.png', 'scratch', 'ground_truth/scratch/000_mask.png')
  return made


def mpdd(root: pathlib.Path) -> Download:
  made = mvtec(root)
  made.folder.rename(root / 'tubes')
  made.category = 'tubes'
  return made


def mvtec_loco(root: pathlib.Path) -> Download:
  made = Download(root, 'pushpins')
  made.train = made.normal('train/good')
  made.validation = made.normal('validation/good')
  made.good('test/good/000.png')
  truth = 'ground_truth/logical_anomalies/000'
  masks = f'{truth}/000.png', f'{truth}/001.png'
  made.bad('test/logical_anomalies/000.png', 'logical_anomalies', *masks, value=234)
  truth = 'ground_truth/structural_anomalies/000/000.png'
  made.bad('test/structural_anomalies/000.png', 'structural_anomalies', truth)
  return made


def mvtec_ad_2(root: pathlib.Path, category='vial') -> Download:
  """Two private images in each split; the public ones in two lights."""
  made = Download(root, category)
  made.train = made.normal('train/good')
  made.validation = made.normal('validation/good')
  for light in ('regular', 'shift_1'):
    made.good(f'test_public/good/000_{light}.png')
    name = f'000_{light}'
    made.bad(f'test_public/bad/{name}.png', 'bad', f'test_public/ground_truth/bad/{name}_mask.png')
  for number in range(2):
    made.image(f'test_private/{number:03}_regular.png')
    made.image(f'test_private_mixed/{number:03}_mixed.png')
  return made


def mvtec_3d(root: pathlib.Path) -> Download:
  made = Download(root, 'tire')
  made.train = made.normal('train/good/rgb')
  made.normal('train/good/xyz', 'tiff')
  made.validation = made.normal('validation/good/rgb')
  made.good('test/good/rgb/000.png')
  empty_mask(made.folder / 'test/good/gt/000.png')
  made.bad('test/hole/rgb/000.png', 'hole', 'test/hole/gt/000.png')
  made.image('test/hole/xyz/000.tiff')
  return made


def visa(root: pathlib.Path) -> Download:
  made = Download(root, 'pcb1')
  made.train = made.normal('Data/Images/Normal', 'JPG')
  made.good('Data/Images/Normal/100.JPG')
  mask = 'Data/Masks/Anomaly/000.png'
  made.bad('Data/Images/Anomaly/000.JPG', 'anomaly', mask, value=3)
  made.image('Data/Images/Normal/200.JPG')  # in no split
  # The rows have no order.
  rows = [f'pcb1,train,normal,pcb1/{name},' for name in reversed(made.train)]
  rows.append('candle,train,normal,candle/Data/Images/Normal/000.JPG,')
  rows.append(f'pcb1,test,anomaly,pcb1/Data/Images/Anomaly/000.JPG,pcb1/{mask}')
  rows.append('pcb1,test,normal,pcb1/Data/Images/Normal/100.JPG,')
  (root / 'split_csv').mkdir()
  (root / 'split_csv/1cls.csv').write_text('\n'.join(['object,split,label,image,mask', *rows]))
  return made


def btad(root: pathlib.Path) -> Download:
  made = Download(root, '03')
  made.train = made.normal('train/ok', 'bmp')
  made.good('test/ok/0001.bmp')
  made.bad('test/ko/0001.bmp', 'ko', 'ground_truth/ko/0001.png', value=1)
  made.bad('test/ko/0002.bmp', 'ko', 'ground_truth/ko/0002.png', value=0)
  return made


def kolektor_sdd2(root: pathlib.Path) -> Download:
  made = Download(root, 'all')
  for split in ('train', 'test'):
    made.bad(f'{split}/10002.png', 'defect', f'{split}/10002_GT.png')
  made.test.pop('train/10002.png')
  for i in (0, 1, 3):
    made.train.append(made.image(f'train/1000{i}.png'))
    empty_mask(root / f'train/1000{i}_GT.png')
  made.good('test/10004.png')
  empty_mask(root / 'test/10004_GT.png')
  made.image('train/10000 (copy).png')
  empty_mask(root / 'train/10000_GT (copy).png')
  return made


def magnetic_tile(root: pathlib.Path) -> Download:
  """Six tiles, two exposures each; the fifth is tested."""
  made = Download(root, 'all')
  frames = [(exposure, 1000 * tile + exposure) for tile in range(6) for exposure in (1, 4)]
  for exposure, frame in frames:
    name = f'MT_Free/Imgs/exp{exposure}_num_{frame}.jpg'
    if frame // 1000 == 4:
      made.good(name)
    else:
      made.train.append(made.image(name))
    empty_mask(root / name.replace('.jpg', '.png'))
  crack = 'MT_Crack/Imgs/exp2_num_77'
  made.bad(f'{crack}.jpg', 'crack', f'{crack}.png')
  return made


WRITERS = {
  writer.__name__: writer
  for writer in (
    mvtec,
    mvtec_loco,
    mvtec_ad_2,
    mvtec_3d,
    visa,
    btad,
    mpdd,
    kolektor_sdd2,
    magnetic_tile,
  )
}
