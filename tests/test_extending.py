"""The code of docs/extending.md, as it stands there, in runs of the command."""

import re

import numpy as np
import pytest
from PIL import Image

from gdm_jax import basis, grouping, losses, main, models, path, sampling, schedule, solvers
from gdm_jax.data import sources
from gdm_jax.generation import editing
from gdm_jax.grouping import GROUPINGS
from gdm_jax.process import Process
from tests.support import runs

TEXT = (runs.ROOT / 'docs' / 'extending.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
REGISTRIES = (
  *(grouping.GROUPINGS, basis.BASES, path.PATHS, losses.WEIGHTINGS, solvers.SOLVERS),
  *(models.NETWORKS, sources.KINDS, editing.OPERATIONS),
)
FLAGS = {
  'checkerboard': 'strategies.main.grouping=checkerboard strategies.main.groups=2',
  'haar': 'basis.name=haar strategies.main.grouping=bands strategies.main.groups=4,16',
  'cosine': 'path=cosine',
  'noisy': 'train.weighting=noisy',
  'ralston': 'sampling.solver=ralston',
  'small_conv': 'model.name=small_conv',
  'stripes': 'data.name=stripes',
}


@pytest.fixture(autouse=True)
def extended(monkeypatch):
  """The registries with what the page adds; and the names that it defines."""
  before = [dict(registry) for registry in REGISTRIES]
  names = {}
  for block in BLOCKS:
    exec(block, names)
  yield names
  for registry, entries in zip(REGISTRIES, before, strict=True):
    registry.clear()
    registry.update(entries)


def test_the_page_adds_one_of_each(extended):
  assert len(BLOCKS) == len(REGISTRIES)
  assert {'checkerboard', 'haar', 'cosine', 'noisy', 'ralston'} <= extended['GROUPINGS'].keys() | (
    basis.BASES.keys() | path.PATHS.keys() | losses.WEIGHTINGS.keys() | solvers.SOLVERS.keys()
  )


@pytest.mark.parametrize('name', FLAGS)
def test_a_run_with_it_trains_and_samples(name, tmp_path):
  overrides = [f'--config.{flag}' for flag in FLAGS[name].split()]
  assert all(flag in TEXT for flag in overrides)  # as the page says
  arguments = runs.arguments(tmp_path / 'run', *overrides, steps=2)
  assert main.main(['', *arguments]) == 0
  samples = Image.open(tmp_path / 'run' / 'samples.png')
  assert np.asarray(samples).std() > 0


def test_an_unknown_name_lists_it(tmp_path, capsys):
  wrong = '--config.strategies.main.grouping=chess'
  assert main.main(['', *runs.arguments(tmp_path / 'run', wrong)]) == 2
  assert 'checkerboard' in capsys.readouterr().err


def test_the_edit_operation(tmp_path):
  bands = 'basis.name=cosine', 'strategies.main.grouping=bands', 'strategies.main.groups=4,16'
  arguments = runs.arguments(tmp_path / 'run', *(f'--config.{flag}' for flag in bands), steps=2)
  assert main.main(['', *arguments]) == 0
  digits = runs.ROOT / 'experiments' / 'results' / 'completion' / 'digits'
  edit = f'--config.edit.images={digits}', '--config.edit.operation=swap_halves'
  assert main.main(['', *arguments, '--mode=edit', *edit]) == 0
  assert len(list((tmp_path / 'run' / 'edited').glob('*_with_*.png'))) == 9


def test_haar_is_orthogonal_and_its_lowest_mode_is_constant(extended):
  u = extended['haar']((8, 4))
  for factor in u.factors:
    np.testing.assert_allclose(factor.T @ factor, np.eye(len(factor)), atol=1e-12)
  assert u.ranks[0, 0] == 0
  assert sorted(u.ranks.ravel()) == list(range(32))
  np.testing.assert_allclose(u.factors[0][:, 0], 8**-0.5)


def test_the_checkerboard_has_fields_of_its_size():
  labels = GROUPINGS['checkerboard'](basis.pixel((4, 4)), 2).labels
  np.testing.assert_array_equal(labels, np.kron([[0, 1], [1, 0]], np.ones((2, 2), int)))


def test_ralston_is_of_order_two():
  """On dy = -y dtau, whose solution falls by the factor e."""
  whole = Process(grouping.whole((1,)), basis.pixel((1,)))
  z = np.ones((1, 1, 1))

  def error(steps):
    table = whole.table(schedule.sequential((0,)), steps)
    x = sampling.sample(lambda x_t, alpha: -x_t, whole, table, z, solvers.SOLVERS['ralston'])
    return abs(float(x[0, 0, 0]) - np.exp(-1))

  assert 3.5 < error(4) / error(8) < 5
