r"""Every key there is, with the authors' settings as defaults.

The other configs start from this one and say what differs. Any key can be set on the command line,
as `--config.train.steps=2000`; a key that is not here is refused.

  python train.py --config configs/default.py --workdir runs/default
"""

import math

import ml_collections

# What tuples that are empty by default would hold.
FILLED = {'score.scale_weights': (1.0,), 'data.value_range': (0.0, 255.0)}

# What the values of keys may be, in tuples each. What must fit together besides, `config_rules`
# checks.
CHOICES = {
  'data.resize': ('nearest', 'box', 'bilinear', 'bicubic', 'lanczos'),
  'data.light': ('kept', 'standardised'),
  'encoder.init': ('uniform', 'he'),
  'train.pairs': ('patches', 'crops'),
  'train.images': ('replicated', 'sharded'),
  'train.compute': ('float32', 'bfloat16'),
  'train.svdd': ('neighbour', 'centre'),
  'train.position_pairs': ('clip', 'valid'),
  'train.mean': ('image', 'channel'),
  'train.optimizer': ('adam', 'lamb', 'lars'),
  'train.learning_rate_scaling': ('none', 'sqrt', 'linear'),
  'train.decay': ('none', 'cosine'),
  'train.on_collapse': ('warn', 'stop'),
  'score.compare': ('patches', 'centre'),
  'score.features': ('embedding', 'hidden', 'thumbnail'),
  'baseline.kernel': ('rbf', 'linear', 'polynomial'),
  'baseline.objective': ('one_class', 'soft_boundary'),
}
# The largest whole number of any key: those of jax have 32 bits.
LARGEST = 2**31 - 1
RANGES = {
  'at least 0': (
    lambda value: 0 <= value < math.inf,
    (
      'data.cache_gib',
      'data.normal_images',
      'encoder.strided_layers',
      'train.svdd_weight',
      'train.position_weight',
      'train.contrast',
      'train.learning_rate',
      'train.warmup_steps',
      'train.clip_norm',
      'train.augment.rgb_shift',
      'train.augment.pixel_noise',
      'train.augment.brightness',
      'train.augment.gain',
      'score.scale_weights',
      'calibration.images',
      'baseline.gamma',
    ),
  ),
  'at least 1': (
    lambda value: value >= 1,
    (
      'train.steps',
      'train.steps_per_call',
      'checkpoint.every',
      'checkpoint.keep',
      'checkpoint.validation_images',
      'baseline.fitted_patches',
      'baseline.steps',
    ),
  ),
  'at least 1, at most 1048576': (
    lambda value: 1 <= value <= 2**20,  # beyond, no memory holds what it is the size of
    (
      'encoder.receptive_field',
      'encoder.depth',
      'encoder.embed_dim',
      'encoder.channels',
      'encoder.merge_features',
      'encoder.strided_kernel',
      'train.batch_size',
      'train.crops',
      'train.crop_size',
      'train.accumulate',
      'score.strides',
      'score.neighbours',
      'score.batch_size',
      'score.components',
      'baseline.stride',
    ),
  ),
  'at least 2': (lambda value: value >= 2, ('calibration.folds',)),
  'at least 1, at most 1024': (
    lambda value: 1 <= value <= 1024,  # the dimensions that the search takes
    ('baseline.components',),
  ),
  'above 0': (
    lambda value: 0 < value < math.inf,
    ('train.contrast_temperature', 'baseline.learning_rate'),
  ),
  'above 0, at most 1024': (lambda value: 0 < value <= 1024, ('encoder.width',)),
  'a share, 0 to below 1': (
    lambda value: 0 <= value < 1,
    ('data.held_out', 'data.contamination', 'score.outliers'),
  ),
  'a share, above 0, at most 1': (
    lambda value: 0 < value <= 1,
    ('data.region_share', 'score.coreset', 'baseline.nu'),
  ),
}


def get_config() -> ml_collections.ConfigDict:
  """Returns the authors' settings, on the embedded brick texture."""
  config = ml_collections.ConfigDict()
  config.seed = 0

  config.data = data = ml_collections.ConfigDict()
  data.name = 'textures'  # embedded; 'mvtec', ... (docs/datasets.md); 'folder': your own images
  data.category = 'brick'  # 'folder': a sub-folder of root, or '' for root itself
  data.root = ''  # 'mvtec', ...: official archive or extracted folder; 'folder': yours, or a list
  data.prepared = ''  # where prepared images are kept; '' is ~/.cache/patch_svdd_jax
  data.cache_gib = 20.0  # GiB there; then those not used for longest go (`patch-svdd cache`)
  data.image_size = (256, 256)  # (height, width) of all; 0: by the training images' aspect or size
  data.value_range = ()  # (black, white) of deeper files than 8 bits; (): training images decide
  data.light = 'kept'  # 'standardised': every image to the same mean and contrast, by itself
  data.resize = 'bicubic'  # 'nearest' (the authors', with Pillow < 7), 'box', 'bilinear', 'lanczos'
  data.region = ''  # PNG, white where parts are judged, or folder of one an image; '': everywhere
  data.region_share = 0.5  # of a patch's pixels that lie in the region at least, for it to count
  data.normal_images = 0  # how many are trained on, spread evenly over the files; 0: all
  data.held_out = 0.0  # share of the normal images that only chooses a checkpoint; 0: the newest is
  data.contamination = 0.0  # defective test images moved among the normal ones, for each of these
  data.contamination_overlap = False  # whether these are tested all the same

  config.encoder = encoder = ml_collections.ConfigDict()
  encoder.receptive_field = 32  # K of the lowest level, pixels
  encoder.depth = 8  # its convolutions; kernel sizes follow
  encoder.width = 1.0  # multiplies all hidden channels
  encoder.embed_dim = 64  # D
  encoder.scales = (64, 32)  # those to train and score: receptive_field times powers of 2
  encoder.channels = (32, 64, 128, 128, 64, 32, 32)  # hidden channels, resampled to other depths
  encoder.merge_features = 128  # channels inside a level that joins four patches of the level below
  encoder.strided_layers = 1  # leading convolutions of stride 2
  encoder.strided_kernel = 3  # and their kernel size
  encoder.init = 'uniform'  # PyTorch's, as the authors'; 'he': for leaky ReLU, He et al. 2015

  config.train = train = ml_collections.ConfigDict()
  train.steps = 10_000
  train.steps_per_call = 10  # steps in one program call: metrics, checkpoints and stops lie between
  train.pairs = 'patches'  # each encoded by itself; or pairs out of densely encoded 'crops'
  train.batch_size = 64  # pairs of each kind (position, neighbour) at each scale
  train.crops = 4  # 'crops': how many, among which the pairs are divided
  train.crop_size = 160  # 'crops': pixels along a side
  train.accumulate = 1  # equal parts of a batch that are computed one after another
  train.images = 'replicated'  # on every device; 'sharded': each device (of a slice) holds a part
  train.compute = 'float32'  # or 'bfloat16', of the encoder in training; parameters are float32
  train.rematerialise = False  # compute activations twice instead of keeping them
  train.svdd = 'neighbour'  # L_SVDD'; 'centre': L_SVDD, the distance to one centre (Deep SVDD)
  train.svdd_weight = 1.0  # lambda, the weight of that loss; the authors' README uses 1e-3
  train.position_weight = 1.0  # of the position loss L_SSL; 0 trains without
  train.contrast = 0.0  # weight of a contrastive loss of the neighbour pairs; 0 trains without
  train.contrast_temperature = 0.2  # of its softmax, over the pairs of one of `accumulate` parts
  train.position_pairs = 'clip'  # 'patches': moves a second one inside; 'valid': none is outside
  train.train_last_layer = False  # of the position classifier; the authors' never trains
  train.mean = 'image'  # what is subtracted: the per-pixel mean 'image', or one mean per 'channel'
  train.optimizer = 'adam'  # or 'lamb', 'lars'
  train.learning_rate = 1e-4
  train.learning_rate_scaling = 'none'  # by batch_size / 64: 'linear', or 'sqrt' of it
  train.warmup_steps = 0  # linear, from 0
  train.decay = 'none'  # or 'cosine', to 0 at the last step
  train.clip_norm = 0.0  # largest global norm of the gradient; 0 is no clipping
  train.on_collapse = 'warn'  # or 'stop', when the embeddings of a scale collapse to a point

  train.augment = augment = ml_collections.ConfigDict()  # standard deviations, images lie in [0, 1]
  augment.rgb_shift = 0.02  # of each channel of a patch of a position pair
  augment.pixel_noise = 0.02  # of each pixel of a patch of a position pair
  augment.brightness = 0.0  # of a shift common to a patch's pixels and channels, in all pairs
  augment.gain = 0.0  # of the logarithm of a factor common to a patch's pixels, in all pairs

  config.checkpoint = checkpoint = ml_collections.ConfigDict()
  checkpoint.every = 200  # steps, rounded up to whole calls
  checkpoint.keep = 3  # the newest so many are kept, and the one that held-out images choose
  checkpoint.validation_images = 16  # held-out ones, and training ones they are compared with

  config.score = score = ml_collections.ConfigDict()
  score.strides = (16, 4)  # pixels between patches, one for each of encoder.scales
  score.neighbours = 1  # a patch's score is the mean distance to so many nearest normal patches
  score.compare = 'patches'  # with normal patches; 'centre': with their mean embedding (Deep SVDD)
  score.features = ('embedding',)  # of patches; 'hidden': two layers' mean activations; 'thumbnail'
  score.whiten = False  # divide the features' principal components by their deviations, shrunk
  score.components = 64  # 'whiten': principal components that are kept
  score.scale_weights = ()  # exponents in the product of maps, for each of encoder.scales; (): 1
  score.batch_size = 8  # images embedded at a time on each device
  score.tile = 1024  # larger images are embedded in tiles of so many pixels at most; 0: whole
  score.outliers = 0.0  # share of the memory bank that is dropped, that farthest from other images
  score.coreset = 1.0  # share of the memory bank that is kept, by k-center greedy; 1 keeps all

  config.calibration = calibration = ml_collections.ConfigDict()  # of train, fit: scores to rates
  calibration.images = 200  # normal images that say which scores are normal, at most; 0: none
  calibration.folds = 5  # where few are held out: all are scored by banks without a fold of them

  config.baseline = baseline = ml_collections.ConfigDict()  # of the command `baselines`
  baseline.components = 64  # principal components of raw pixels that what has no encoder works on
  baseline.stride = 8  # pixels between the patches of ocsvm_patch, svdd_patch and raw_patch
  baseline.fitted_patches = 2000  # that PCA, OC-SVM and SVDD are fitted to at most, at random
  baseline.nu = 0.1  # share of normal images or patches that may lie outside
  baseline.kernel = 'rbf'  # of OC-SVM and SVDD, which it makes equal; 'linear', 'polynomial'
  baseline.gamma = 0.0  # of the kernel; 0: 1 / (components * variance)
  baseline.objective = 'one_class'  # of deep_svdd; or 'soft_boundary'
  baseline.steps = 1000  # of its training, 64 images each
  baseline.learning_rate = 1e-4
  return config.lock()
