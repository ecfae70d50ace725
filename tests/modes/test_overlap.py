"""Models whose groups overlap in time, in the command: what works, and what is refused."""

import jax
import numpy as np
import pytest
from PIL import Image

from configs import digits, digits_causal
from gdm_jax import build, main, path
from gdm_jax.modes.complete import completion_table
from gdm_jax.training import step as training_step
from tests.support import runs

OVERLAP = ('--config.strategies.main.overlap=0.5', '--config.sampling.steps=8')
CAUSAL = ('--config.model.group_causal.width=16', '--config.model.group_causal.depth=2')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """The group-causal network, which may be walked with a cache and without."""
  workdir = tmp_path_factory.mktemp('overlap') / 'run'
  args = runs.arguments(workdir, *OVERLAP, *CAUSAL, config='digits_causal', steps=3)
  assert main.main(['', *args]) == 0
  return workdir


def run(workdir, mode, *overrides):
  fixed = *CAUSAL, '--config.sampling.steps=8', '--config.sampling.seeds=0-2'
  args = runs.arguments(workdir, f'--mode={mode}', *fixed, *overrides, config='digits_causal')
  return main.main(['', *args])


def test_samples_are_walked_without_a_cache(trained):
  for cache in (True, False):
    keys = f'--config.sampling.folder={cache}', f'--config.sampling.cache={cache}'
    assert run(trained, 'sample', *keys) == 0
  a, b = (np.asarray(Image.open(trained / str(c) / 'grid.png')) for c in (True, False))
  np.testing.assert_array_equal(a, b)


def test_a_likelihood_is_that_of_the_whole(trained, capsys):
  assert run(trained, 'likelihood', '--config.likelihood.num=2') == 0
  said = capsys.readouterr().err
  assert 'groups of strategies.main move together: only the total is a likelihood' in said


def test_images_are_encoded_and_decoded(trained, tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
  Image.fromarray(picture).save(tmp_path / 'a.png')
  keys = f'--config.edit.images={tmp_path}/a.png', '--config.edit.solver=reversible_heun'
  assert run(trained, 'edit', *keys) == 0
  back = np.asarray(Image.open(trained / 'edited' / 'a.png')).astype(int)
  assert np.abs(back - picture).max() <= 1


def test_completion_is_refused(trained, tmp_path, capsys):
  Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'a.png')
  keys = f'--config.complete.images={tmp_path}/a.png', '--config.complete.groups=0'
  assert run(trained, 'complete', *keys) == 2
  error = capsys.readouterr().err
  assert 'complete.groups = (0,): the intervals of strategies.main overlap, so others' in error
  assert 'Traceback' not in error


def test_groups_that_come_first_alone_can_be_given(tmp_path):
  config = digits.get_config()
  config.strategies.main.update(start=(0.0, 0.0, 0.3, 0.6), end=(0.5, 0.4, 0.6, 1.0))
  config.complete.groups = (3,)
  _, table, given = completion_table(config, build.system(config))
  assert given == (3,)
  assert np.all(table[-1] == 1)


@pytest.mark.parametrize('module', [digits, digits_causal])
@pytest.mark.parametrize('name', path.PATHS)
def test_training_meets_the_levels_of_generation(name, module):
  """Every drawn level is on the way that generation takes, for groups that move together."""
  config = module.get_config()
  config.path = name
  config.strategies.main.update(order=(2, 0, 3, 1), overlap=0.6)
  config.sampling.steps = (4000,)
  system = build.system(config)
  keys = training_step.random_keys(0, 0)
  x = np.zeros((64, 8, 8, 1), np.float32)
  _, alpha, rate, _ = jax.jit(lambda x: training_step.draw_noise(config, system, keys, x))(x)
  table = np.asarray(build.sampling_table(config, system))
  distance = np.abs(np.asarray(alpha)[:, None] - table).max(-1).min(1)
  assert distance.max() < 2e-3
  moves = np.asarray(rate) != 0
  assert moves.sum(1).max() > 1
  np.testing.assert_array_equal(moves[(alpha > 0) & (alpha < 1)], True)
