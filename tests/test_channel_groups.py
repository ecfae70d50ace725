"""Groups that hold some channels of a position, against closed forms; and label maps from files.

Groups of channels on a grid (H, W) are groups of positions on the grid (H, W, c), on which the
closed forms of `tests.support.gaussian` are known; a basis acts on H and W alone.
"""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

from configs import default
from gdm_jax import basis as bases
from gdm_jax import build, grouping, likelihood, sampling, schedule
from gdm_jax.process import Process
from gdm_jax.runtime.errors import ConfigError
from tests.support import gaussian
from tests.test_likelihood import conditionals

GRID, CHANNELS = (2, 2), 3
ORDERS = {'channels': (2, 0, 1), 'elements': tuple(np.random.default_rng(0).permutation(12))}
BASES = {'pixel': bases.pixel(GRID), 'blur': bases.blur(GRID)}


def processes(kind, basis):
  """The process by channel, and the same one over positions of the longer grid."""
  groups = {'channels': grouping.channels, 'elements': grouping.elements}[kind](GRID, CHANNELS)
  positions = grouping.Grouping(groups.labels, groups.num_groups)
  ranks = np.arange(np.prod(positions.shape)).reshape(positions.shape)
  factors = (*basis.factors, np.eye(CHANNELS)) if basis.factors else ()
  return Process(groups, basis), Process(positions, bases.Basis(factors, ranks))


@functools.partial(jax.jit, static_argnames='solver')
def there_and_back(by_channel, flat, data, table, z, solver):
  of_positions = gaussian.optimal(data, flat)

  def predict(x_t, alpha):
    return of_positions(x_t[..., None], alpha)[..., 0]

  x = sampling.sample(predict, by_channel, table, z, solver)
  nats = likelihood.log_likelihood(predict, by_channel, table, x, None, solver)
  return x, sampling.encode(predict, by_channel, table, x, solver), nats


@pytest.mark.usefixtures('float64')
@pytest.mark.parametrize('basis', BASES)
@pytest.mark.parametrize('kind', ORDERS)
def test_sampling_encoding_and_likelihood_are_exact(kind, basis):
  by_channel, flat = processes(kind, BASES[basis])
  order = ORDERS[kind]
  data = gaussian.mixture(12, seed=3)
  z = np.random.default_rng(1).normal(size=(5, *GRID, CHANNELS))
  table = schedule.table(schedule.sequential(order), 120 * len(order))
  x, back, nats = there_and_back(by_channel, flat, data, table, z, 'rk4')

  case = gaussian.Case(flat, order, None, ())
  np.testing.assert_allclose(
    x, gaussian.transport(data, flat, order, z[..., None])[..., 0], atol=1e-9
  )
  np.testing.assert_allclose(back, z, atol=1e-9)
  np.testing.assert_allclose(nats, conditionals(case, data, np.asarray(x)[..., None]), atol=1e-9)


def test_the_map_of_levels_has_all_channels():
  process = Process(grouping.channels(GRID, 3), bases.pixel(GRID))
  levels = process.coefficient_map(np.array([[0.1, 0.2, 0.3]]))
  assert levels.shape == (1, *GRID, 3)
  np.testing.assert_allclose(levels[0, 0, 0], [0.1, 0.2, 0.3])


def test_refinement_with_groups_of_positions():
  rows, colours = grouping.rows(GRID, 2), grouping.channels(GRID, 3)
  refined, indices = grouping.refine(rows, colours)
  assert refined.by_channel
  assert refined.shape == GRID
  assert refined.num_groups == 6
  np.testing.assert_array_equal(indices[0][refined.labels], rows.of_elements.repeat(3, -1))
  np.testing.assert_array_equal(indices[1][refined.labels], colours.labels)


def config_of(name, groups=(), shape=(4, 4, 3)):
  config = default.get_config()
  config.data.shape = shape
  config.strategies.main = default.strategy(name, groups)
  config.model.ddpmpp.update(channels=8, multipliers=(1,), blocks=1, attention=())
  return config


@pytest.mark.parametrize('groups', [('channels', (3,), 3), ('elements', (3,), 48)])
def test_a_config_builds_its_network(groups):
  name, options, k = groups
  system = build.system(config_of(name, options))
  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  assert system.process.grouping.num_groups == k
  assert params['enc_4x4_conv']['kernel'].shape[2] == 6


@pytest.mark.parametrize(
  ('name', 'groups', 'shape', 'message'),
  [
    ('channels', (3,), (4, 4, 1), 'the data have 1 channel '),
    ('channels', (1,), (4, 4, 1), 'must be 2 or more'),
    ('channels', (), (4, 4, 3), 'does not fit'),
    ('elements', (3,), (4, 4, 1), 'the data have 1 channel '),
  ],
)
def test_other_channels_than_the_data_have(name, groups, shape, message):
  with pytest.raises(ConfigError, match=message):
    build.system(config_of(name, groups, shape))


def test_label_maps_are_read(tmp_path):
  labels = np.arange(16, dtype=np.uint8).reshape(4, 4) % 3
  colours = np.stack([labels, labels[::-1], labels + 3], -1)
  Image.fromarray(labels).save(tmp_path / 'grey.png')
  palette = Image.fromarray(labels, 'P')
  palette.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
  palette.save(tmp_path / 'palette.png')
  Image.fromarray(colours).save(tmp_path / 'colours.png')
  np.savez(tmp_path / 'array.npz', labels=labels)
  for file in ('grey.png', 'palette.png', 'array.npz'):
    found = build.system(config_of(f'file:{tmp_path / file}')).process.grouping
    np.testing.assert_array_equal(found.labels, labels)
    assert (found.num_groups, found.by_channel) == (3, False)
  found = build.system(config_of(f'file:{tmp_path}/colours.png')).process.grouping
  np.testing.assert_array_equal(found.labels, colours)
  assert (found.num_groups, found.by_channel) == (6, True)


def test_unfit_label_maps_are_refused(tmp_path):
  def problem_of(labels, file='map.npz'):
    np.savez(tmp_path / 'map.npz', labels=labels)
    with pytest.raises(ConfigError) as caught:
      build.system(config_of(f'file:{tmp_path / file}'))
    message = str(caught.value)
    assert '\n' not in message
    assert message.startswith(f'strategies.main.grouping = file:{tmp_path / file}: ')
    return message

  fit = np.arange(16).reshape(4, 4) % 3
  assert 'shape (4, 3): must be (4, 4) or (4, 4, 3)' in problem_of(fit[:, :3])
  assert 'labels 0, 2, 4: must be the numbers 0 to k-1' in problem_of(2 * fit)
  assert 'labels 1, 2, 3: must be' in problem_of(fit + 1)
  assert 'must be the numbers' in problem_of(fit.astype(float))
  assert 'No such file' in problem_of(fit, 'nowhere.png')
  (tmp_path / 'text.png').write_text('text')
  assert 'no picture and no npz file' in problem_of(fit, 'text.png')
  (tmp_path / 'cut.npz').write_bytes((tmp_path / 'map.npz').read_bytes()[:-30])
  assert 'cut.npz' in problem_of(fit, 'cut.npz')
  np.savez(tmp_path / 'other.npz', x=fit)
  assert "has no array 'labels', only x" in problem_of(fit, 'other.npz')
