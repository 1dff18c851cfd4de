"""Tiny imitations of what the published data sets' official downloads contain."""

import dataclasses
import json
import pathlib

import numpy as np
import pyarrow.parquet

from tests.support.categories import HEIGHT, WIDTH, pixels, save


@dataclasses.dataclass
class Download:
  """A folder, and what is to be found in it.

  Attributes:
    root: the folder.
    category: what to load of it.
    place: the folder of its images below the root; otherwise that of the category's name.
    train, validation: names of the images.
    test: name of each image to (defect, mask); None for a mask that is not known.
  """

  root: pathlib.Path
  category: str
  place: str = ''
  train: list[str] = dataclasses.field(default_factory=list)
  validation: list[str] = dataclasses.field(default_factory=list)
  test: dict[str, tuple[str, np.ndarray | None]] = dataclasses.field(default_factory=dict)

  @property
  def folder(self) -> pathlib.Path:
    return self.root / (self.place or ('' if self.category == 'all' else self.category))

  def image(self, name: str) -> str:
    save(self.folder / name, pixels(len(list(self.root.rglob('*')))))
    return name

  def normal(self, place: str, suffix='png') -> list[str]:
    return [self.image(f'{place}/{i:03}.{suffix}') for i in range(3)]

  def good(self, name: str) -> str:
    self.test[self.image(name)] = 'good', np.zeros((HEIGHT, WIDTH), bool)
    return name

  def bad(self, name: str, defect: str, *masks: str, value=255) -> None:
    """A defective image; each of its masks, if there are some, marks another row."""
    union = np.zeros((HEIGHT, WIDTH), bool)
    for row, mask in enumerate(masks, 1):
      part = np.zeros((HEIGHT, WIDTH), np.uint8)
      part[row, 2:6] = value
      save(self.folder / mask, part)
      union |= part > 0
    self.test[self.image(name)] = defect, union if masks else None


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


def real_iad(root: pathlib.Path) -> Download:
  """Two parts of five views; the anomaly of one shows in a view alone."""
  made = Download(root, 'pcb', 'realiad_1024/pcb')
  part = 'OK/S0001/pcb_0001_OK_C{}_2023.jpg'
  made.train = [made.image(part.format(view)) for view in range(1, 6)]
  part = 'NG/BX/S0002/pcb_0002_NG_C{}_2023{}'
  made.bad(part.format(1, '.jpg'), 'deformation', part.format(1, '_mask.png'))
  made.good(part.format(2, '.jpg'))
  # The entries have no order.
  train = [real_iad_entry(name) for name in reversed(made.train)]
  defective = real_iad_entry(part.format(1, '.jpg'), 'BX', part.format(1, '_mask.png'))
  write_real_iad(
    root, {'meta': {}, 'train': train, 'test': [real_iad_entry(part.format(2, '.jpg')), defective]}
  )
  return made


def real_iad_entry(image: str, kind='OK', mask: str | None = None) -> dict[str, str | None]:
  return {'category': 'pcb', 'anomaly_class': kind, 'image_path': image, 'mask_path': mask}


def write_real_iad(root: pathlib.Path, contents: object) -> pathlib.Path:
  path = root / 'realiad_jsons/realiad_jsons/pcb.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(contents))
  return path


def autovi(root: pathlib.Path) -> Download:
  made = Download(root, 'pipe_clip')
  made.train = made.normal('train/good')
  made.good('test/good/0000.png')
  masks = [f'ground_truth/unclipped/0089/000{i}.png' for i in range(2)]
  made.bad('test/unclipped/0089.png', 'unclipped', *masks)
  made.bad('test/operator/0001.png', 'operator', 'ground_truth/operator/0001/0000.png')
  made.image('defect_example.png')
  (made.folder / 'defects_config.json').write_text('[]')
  return made


def vad(root: pathlib.Path) -> Download:
  made = Download(root, 'all')
  made.train = made.normal('train/good')
  made.image('train/bad/1.png')
  made.good('test/good/2.png')
  made.bad('test/bad/3.png', 'bad')
  made.bad('test/bad_unseen_defects/4.png', 'bad_unseen_defects')
  (root / 'low_shot_train.json').write_text('{}')
  return made


def bmad(root: pathlib.Path) -> Download:
  """As the authors' page shows Brain."""
  made = Download(root, 'Brain')
  made.train = made.normal('BraTS2021_slice/train/good')
  made.validation = made.normal('BraTS2021_slice/valid/good/img')
  made.image('BraTS2021_slice/valid/Ungood/img/00124_60.png')
  made.good('BraTS2021_slice/test/good/img/00000_96.png')
  empty_mask(made.folder / 'BraTS2021_slice/test/good/label/00000_96.png')
  place = 'BraTS2021_slice/test/Ungood'
  made.bad(f'{place}/img/00002_60.png', 'Ungood', f'{place}/label/00002_60.png')
  return made


def kaputt(root: pathlib.Path) -> Download:
  """Two materials; photographs of whole trays and of items to compare with lie beside."""
  made = Download(root, 'paper', 'query-crop')
  rows = {split: [] for split in ('train', 'validation', 'test')}

  def row(split: str, name: str, types: str | None = '', material='paper') -> str:
    crop = f'data/{split}/query-data/crop/{name}.jpg'
    rows[split].append((crop, bool(types), types, material, name))
    return crop

  for split, names in (('train', made.train), ('validation', made.validation)):
    names += [made.image(row(split, name, None)) for name in ('2a', '10b')]
    made.image(row(split, '3c', 'spillage'))
  made.good(row('test', '4d'))
  made.bad(row('test', '5e', 'deformation,penetration'), 'deformation+penetration')
  made.image(row('test', '6f', material='other'))
  for split, each in rows.items():
    write_kaputt(root, split, each)
  return made


def write_kaputt(root: pathlib.Path, split: str, rows: list[tuple[object, ...]]) -> pathlib.Path:
  """Writes a table of so many columns as the rows have."""
  names = ('query_crop', 'defect', 'defect_types', 'item_material', 'capture_id')
  columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=False))
  path = root / f'datasets/query-{split}.parquet'
  path.parent.mkdir(parents=True, exist_ok=True)
  pyarrow.parquet.write_table(pyarrow.table(columns), path)
  return path


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
    real_iad,
    autovi,
    vad,
    bmad,
    kaputt,
  )
}
