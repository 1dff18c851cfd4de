"""What is said of any program compiled for TPUs that are not here."""

import jax
import jax.numpy as jnp
import pytest

from patch_svdd_jax.errors import UserError
from patch_svdd_jax.system import sharding
from patch_svdd_jax.system.compiled_memory import Memory
from patch_svdd_jax.tpu_planning import aot
from patch_svdd_jax.tpu_planning.aot import Collectives


@pytest.mark.parametrize(
  ('analysis', 'seconds'),
  [
    ({'optimal_seconds': 0.002}, 0.002),
    ({'optimal_seconds': -1.998}, None),
    ({'optimal_seconds': 0.0}, None),
    ({'flops': 1.0}, None),
    (None, None),
  ],
)
def test_an_estimate_that_is_no_time_is_none(analysis, seconds):
  assert aot.positive(analysis) == seconds


def test_collectives_are_counted_once_whether_they_wait_or_not():
  program = """
    %all-gather.1 = f32[4,10]{1,0:T(8,128)} all-gather(f32[1,10]{0} %all-reduce.7), channel_id=1
    %all-gather-start.2 = (bf16[3]{0}, bf16[12]{0:T(8)}) all-gather-start(%x), channel_id=2
    %all-gather-done.2 = f32[4] all-gather-done(%all-gather-start.2)
    %pmax.6 = (s32[9]{0}, pred[5]{0}, f32[]) all-reduce(%y), op_name="= f32[7] all-gather(1)"
    ROOT %r = f32[2,3]{1,0} all-reduce-start(%z), channel_id=4
    %t = (f32[2,3]) all-reduce-done(%r)
    %s = u8[6]{0} reduce-scatter(%z), channel_id=5
    %p = (f32[6]{0}, f32[7]{0}, u32[]{:S(2)}, u32[]{:S(2)}) collective-permute-start(%s)
  """
  assert aot.counted(aot.collectives_of(program), aot.CHIPS['v5e']) == {
    'all-gather': Collectives(2, 4 * 10 * 4 + 12 * 2),
    'all-reduce': Collectives(2, 9 * 4 + 5 + 4 + 2 * 3 * 4),
    'collective-permute': Collectives(1, 7 * 4),
    'reduce-scatter': Collectives(1, 6),
  }


def test_what_crosses_between_slices_is_what_is_sent_to_their_runtime():
  sent = 'is_host_transfer=true, frontend_attributes={_xla_megascale_target="{1,2}x{0:3}",'
  program = f"""
    %send.1 = (f32[2,8,128]{{2,1,0:T(8,128)}}, u32[], token[]) send(%a), {sent}_xla_megascale_transfer_type="ALL_REDUCE"}}
    %recv.1 = (f32[2,8,128]{{2,1,0:T(8,128)}}, u32[], token[]) recv(%t), {sent}_xla_megascale_transfer_type="ALL_REDUCE"}}
    ROOT %s = ((f32[3], bf16[5]{{0}}), u32[]{{:S(2)}}, token[]) send(%b, %t), {sent}_xla_megascale_transfer_type="ALL_REDUCE"}}
    %send.2 = (f32[4], u32[], token[]) send(%c, %t), {sent}_xla_megascale_transfer_type="ALL_GATHER"}}
    %send.3 = (f32[99], u32[], token[]) send(%d, %t), is_host_transfer=true
    %send-done = token[] send-done(%send), {sent}_xla_megascale_transfer_type="ALL_REDUCE"}}
  """  # fmt: skip # noqa: E501
  assert list(aot.between_slices_of(program)) == [
    ('all-reduce', 2 * 8 * 128 * 4),
    ('all-reduce', 3 * 4 + 5 * 2),
    ('all-gather', 4 * 4),
  ]


def test_figures_of_a_chip_are_of_its_devices_together():
  chip = aot.CHIPS['tpu7x']
  assert aot.of_chip(Memory(1, 2, 3), chip) == Memory(2, 4, 6)
  assert aot.counted([('all-reduce', 5), ('all-reduce', 6)], chip) == {
    'all-reduce': Collectives(2, 22)
  }
  assert aot.chips_of('tpu7x:1x1x2', sharding.all_devices()) == 2
  assert aot.chips_of('v5e:2x2', sharding.all_devices()) == 4


def test_a_program_that_jax_cannot_read_is_said(monkeypatch):
  class Unreadable:
    def as_text(self):
      raise jax.errors.JaxRuntimeError('INTERNAL: RET_CHECK failure\nmore')

  monkeypatch.setattr(aot, 'compiler', lambda: 'libtpu 9.9')
  line = r'cannot read what libtpu 9\.9 compiled \(INTERNAL: RET_CHECK failure\): pip install'
  with pytest.raises(UserError, match=line) as caught:
    aot.text_of(Unreadable())
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('topology', ['v9:2x2', 'v5e', 'v5e:4', 'v5e:0x4', '', 'v4:2x2x2x2'])
def test_what_is_no_topology_is_refused(topology):
  with pytest.raises(UserError, match=f'^no TPU topology {topology!r}: give one of v4, '):
    aot.check_topology(topology)
  aot.check_topology('v5e:16x16')


def test_described_arrays_have_shapes_types_and_places():
  mesh = sharding.all_devices()
  tree = {'a': jnp.zeros((4, 3)), 'key': jax.random.key(0)}
  found = aot.described(tree, mesh)
  assert (found['a'].shape, found['a'].dtype) == ((4, 3), jnp.float32)
  assert found['key'].dtype == tree['key'].dtype
  assert found['a'].sharding.is_fully_replicated
  sharded = aot.described(tree['a'], mesh, sharding.SHARDED)
  assert sharded.sharding.shard_shape((4, 3)) == (1, 3)


def test_a_program_that_does_not_fit_is_none_and_other_errors_are_not_hidden():
  class Lowered:
    def __init__(self, message):
      self.message = message

    def compile(self, options):
      raise jax.errors.JaxRuntimeError(self.message)

  assert aot.compile_fitting(Lowered('RESOURCE_EXHAUSTED: 17 GB'), {}) is None
  with pytest.raises(jax.errors.JaxRuntimeError, match='INTERNAL'):
    aot.compile_fitting(Lowered('INTERNAL: broken'), {})


class Compiled:
  """Stands in for a program of 1 GFLOP, one turn of whose loop the compiler expects of 1 ms."""

  def memory_analysis(self):
    return type(
      'Analysis',
      (),
      {
        'argument_size_in_bytes': 100,
        'temp_size_in_bytes': 20,
        'output_size_in_bytes': 50,
        'alias_size_in_bytes': 45,
      },
    )

  def cost_analysis(self):
    return {'optimal_seconds': 1e-3}

  def as_text(self):
    return ' %a = f32[2] all-reduce(%b)'


@pytest.mark.parametrize(
  ('compute', 'parts', 'peak', 'longest'),
  # 4 chips of 197 TFLOP/s take 1 ms for 0.788 TFLOP.
  [('bfloat16', 1, 1e-3, 1e-3), ('float32', 2, 6e-3, 6e-3), ('bfloat16', 3, 1e-3, 3e-3)],
)
def test_utilisation_is_of_the_longer_time(monkeypatch, compute, parts, peak, longest):
  monkeypatch.setattr(aot, 'compile_fitting', lambda *_: Compiled())
  found = aot.compile_program('v5e:2x2', 4, 1, None, flops=0.788e12, compute=compute, parts=parts)
  assert found.memory == Memory(100, 20, 5)
  assert found.bytes == 125
  assert found.peak_seconds == pytest.approx(peak)
  assert found.compiler_seconds == pytest.approx(1e-3 * parts)
  assert found.utilisation == pytest.approx(1e-3 / longest)
  assert found.collectives == {'all-reduce': Collectives(1, 8)}


def test_a_time_that_no_chip_can_keep_is_none(monkeypatch):
  monkeypatch.setattr(aot, 'compile_fitting', lambda *_: Compiled())
  found = aot.compile_program('v5e:2x2', 4, 1, None, flops=0.8e12, compute='bfloat16')
  assert found.compiler_seconds is None
  assert found.utilisation is None
