"""The published data sets by the names that `config.data.name` knows them by."""

from patch_svdd_jax.data.autovi import AutoVi
from patch_svdd_jax.data.bmad import Bmad
from patch_svdd_jax.data.btad import Btad
from patch_svdd_jax.data.kaputt import Kaputt
from patch_svdd_jax.data.kolektor_sdd2 import KolektorSdd2
from patch_svdd_jax.data.magnetic_tile import MagneticTile
from patch_svdd_jax.data.mpdd import Mpdd
from patch_svdd_jax.data.mvtec import Mvtec
from patch_svdd_jax.data.mvtec_3d import Mvtec3d
from patch_svdd_jax.data.mvtec_ad_2 import MvtecAd2
from patch_svdd_jax.data.mvtec_loco import MvtecLoco
from patch_svdd_jax.data.published import PublishedBuilder
from patch_svdd_jax.data.real_iad import RealIad
from patch_svdd_jax.data.vad import Vad
from patch_svdd_jax.data.visa import Visa

BUILDERS: dict[str, type[PublishedBuilder]] = {
  builder.name: builder
  for builder in (
    Mvtec,
    MvtecLoco,
    MvtecAd2,
    Mvtec3d,
    Visa,
    Btad,
    Mpdd,
    KolektorSdd2,
    MagneticTile,
    RealIad,
    AutoVi,
    Vad,
    Bmad,
    Kaputt,
  )
}
