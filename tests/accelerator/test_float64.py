"""The figures that the self-check expects are those of float64."""

import pytest

from tests.accelerator import checks, float64


@pytest.mark.slow
def test_the_figures_of_some_screws(shared_data, tmp_path):
  _, params, normal, test = checks.screws(shared_data, tmp_path)
  assert (len(normal), len(test)) == (20, 40)
  assert test.has_mask.all()
  found = float64.figures(params, normal, test.images, test.labels, test.masks)
  assert found.keys() == checks.SCREW.keys()
  for name, figures in checks.SCREW.items():
    assert found[name] == pytest.approx(figures, abs=5e-5), name
