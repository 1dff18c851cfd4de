"""Which convolutions a receptive field and a depth ask for."""

import pytest

from patch_svdd_jax.configs import default
from patch_svdd_jax.errors import UserError
from patch_svdd_jax.models import architecture
from patch_svdd_jax.models.architecture import Convolution


def encoder_config(**settings):
  config = default.get_config().encoder
  config.update(settings)
  return config


def output_extent(extent, kernels, strides):
  """What VALID convolutions leave of an axis."""
  for kernel, stride in zip(kernels, strides, strict=True):
    assert kernel <= extent
    extent = (extent - kernel) // stride + 1
  return extent


def test_default_is_the_authors_encoder():
  arch = architecture.from_config(encoder_config())
  widths = (32, 64, 128, 128, 64, 32, 32, 64)
  strides = (2, 1, 1, 1, 1, 1, 1, 1)
  assert arch.base == tuple(
    Convolution(3, stride, width) for stride, width in zip(strides, widths, strict=True)
  )
  assert arch.scales == (64, 32)
  assert arch.levels == (32, 64)
  assert (arch.merge_features, arch.embed_dim, arch.native_stride) == (128, 64, 2)


def test_non_hierarchical_encoder_of_the_ablation():
  config = encoder_config(
    receptive_field=64,
    depth=4,
    channels=(64, 64, 128),
    strided_layers=3,
    strided_kernel=5,
    scales=(64,),
  )
  arch = architecture.from_config(config)
  expected = [(5, 2, 64), (5, 2, 64), (5, 2, 128), (5, 1, 64)]
  assert arch.base == tuple(Convolution(*layer) for layer in expected)
  assert arch.levels == (64,)
  assert arch.native_stride == 8


@pytest.mark.parametrize(
  ('receptive_field', 'strided_layers', 'strided_kernel', 'depths'),
  [
    (32, 1, 3, range(2, 16)),
    (64, 3, 5, range(4, 8)),
    (16, 0, 3, range(1, 16)),
    (64, 1, 3, range(2, 32)),
    (33, 2, 4, range(3, 8)),
  ],
)
def test_every_possible_depth_maps_a_patch_to_one_point(
  receptive_field, strided_layers, strided_kernel, depths
):
  for depth in depths:
    kernels = architecture.deal_kernels(receptive_field, depth, strided_layers, strided_kernel)
    strides = [2] * strided_layers + [1] * (depth - strided_layers)
    assert output_extent(receptive_field, kernels, strides) == 1
    dealt = kernels[strided_layers:]
    # As evenly as it goes, larger first, and no layer that only mixes channels.
    assert sorted(dealt, reverse=True) == list(dealt)
    assert max(dealt) - min(dealt) <= 1
    assert min(dealt) >= 2
  for depth in (0, depths[0] - 1, depths[-1] + 1):
    with pytest.raises(UserError, match=f'depths from {depths[0]} to {depths[-1]} can') as caught:
      architecture.deal_kernels(receptive_field, depth, strided_layers, strided_kernel)
    assert f'config.encoder.depth={depth} ' in str(caught.value)


@pytest.mark.parametrize(('strided_layers', 'strided_kernel'), [(5, 3), (1, 32), (3, 40)])
def test_strided_layers_that_eat_the_patch_are_refused(strided_layers, strided_kernel):
  with pytest.raises(UserError, match='lower one of them'):
    architecture.deal_kernels(32, 8, strided_layers, strided_kernel)


def test_channels_follow_the_profile():
  profile = (32, 64, 128, 128, 64, 32, 32)
  assert architecture.resample_channels(profile, 7, 1.0) == profile
  assert architecture.resample_channels(profile, 7, 0.25) == (8, 16, 32, 32, 16, 8, 8)
  assert architecture.resample_channels(profile, 14, 1.0) == tuple(
    width for width in profile for _ in range(2)
  )
  assert architecture.resample_channels(profile, 1, 1.0) == (32,)
  assert architecture.resample_channels((3, 1), 2, 0.01) == (1, 1)


def test_width_leaves_the_embedding_alone():
  arch = architecture.from_config(encoder_config(width=0.25, embed_dim=48))
  assert [layer.features for layer in arch.base] == [8, 16, 32, 32, 16, 8, 8, 48]
  assert (arch.merge_features, arch.embed_dim) == (32, 48)


@pytest.mark.parametrize(
  ('scales', 'levels'),
  [((32,), (32,)), ((64,), (32, 64)), ((32, 128), (32, 64, 128)), ((64, 256), (32, 64, 128, 256))],
)
def test_levels_reach_up_to_the_largest_scale(scales, levels):
  arch = architecture.from_config(encoder_config(scales=scales))
  assert arch.scales == tuple(sorted(scales, reverse=True))
  assert arch.levels == levels


@pytest.mark.parametrize('scales', [(), (48,), (16, 32), (64, 64), (0,)])
def test_scales_that_are_no_levels_are_refused(scales):
  with pytest.raises(UserError, match=r'config\.encoder\.scales=.*32, 64, 128'):
    architecture.from_config(encoder_config(scales=scales))


def test_quadrants_must_lie_on_the_lowest_levels_grid():
  # With three strided layers the 20-pixel level has outputs every 8 pixels, none of them at 20.
  config = encoder_config(
    receptive_field=20, depth=4, strided_layers=3, strided_kernel=2, scales=(40, 20)
  )
  with pytest.raises(UserError, match='no multiple of the native stride 8'):
    architecture.from_config(config)
  config.scales = (20,)
  assert architecture.from_config(config).native_stride == 8
