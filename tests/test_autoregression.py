"""Proposition 3.1 and Appendix C.1: discrete times, Eq. 20 to 26, and a trained model."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from configs import digits_autoregressive
from gdm_jax import autoregression, basis, build, grouping, losses, main, sampling, schedule
from gdm_jax.conditioning import Predictor
from gdm_jax.models import MLP
from gdm_jax.process import Process
from gdm_jax.runtime.errors import ConfigError
from tests.support import gaussian, runs

D = 4
PROCESS = Process(grouping.elements((D,)), basis.pixel((D,)))
ORDER = (2, 0, 3, 1)
PLAN = schedule.sequential(ORDER)
TABLE = PROCESS.table(PLAN, D)
DATA = gaussian.mixture(D, seed=5)
SIZES = np.ones(D, int)


def drawn(n, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.multivariate_normal(DATA.mean, DATA.cov, n)[..., None].astype(np.float32)
  return x, rng.normal(size=x.shape).astype(np.float32)


@settings(deadline=None)  # of the first example compiling takes long
@given(st.integers(1, 64), st.data())
def test_discrete_times_are_the_ends_of_intervals(k, data):
  order = data.draw(st.permutations(range(k)))
  t = data.draw(st.floats(2.0**-20, 1, width=32))
  plan = schedule.sequential(order)
  end = schedule.interval_ends(plan, np.array([t], np.float32))
  assert end[0] >= t - 1e-6
  index = int(np.round(float(end[0]) * k))
  assert end[0] == np.asarray(plan.end).dtype.type(index / k)
  alpha, rate = schedule.coefficients(plan, end)[0], schedule.rates(plan, end)[0]
  earlier = np.isin(np.arange(k), order[: k - index])
  np.testing.assert_array_equal(alpha, earlier)  # Eq. 20
  np.testing.assert_allclose(rate, np.where(np.arange(k) == order[k - index], -k, 0), rtol=1e-5)


def test_discrete_times_are_equally_likely():
  t = schedule.training_times(jax.random.key(0), 4000)
  ends = schedule.interval_ends(PLAN, t)
  np.testing.assert_array_equal(np.unique(ends, return_counts=True)[1], [1000] * D)


def test_equation_22_is_equation_26():
  x, z = drawn(64)
  predict = gaussian.nonlinear
  t = schedule.interval_ends(PLAN, schedule.training_times(jax.random.key(1), 64))
  alpha, rate = schedule.coefficients(PLAN, t), schedule.rates(PLAN, t)
  eq_22 = D * losses.loss(predict, PROCESS, x, z, alpha, rate, 'velocity')  # a mean over D elements
  x_theta = z + predict(PROCESS.diffuse(x, z, alpha), alpha)  # where nothing is generated
  eq_26 = jnp.sum(jnp.where(rate != 0, D * (x - x_theta)[..., 0], 0) ** 2, -1)
  np.testing.assert_allclose(eq_22, eq_26, rtol=1e-4)
  squares = autoregression.squared_errors(predict, PROCESS, TABLE, x, z)
  chosen = jnp.take_along_axis(squares, jnp.argmax(rate != 0, -1)[:, None], 1)[:, 0]
  np.testing.assert_allclose(eq_26, D**2 * chosen, rtol=1e-4)


def conditional_deviations():
  sigma, known = np.zeros(D), np.zeros(D, bool)
  for group in ORDER:
    _, cov = gaussian.conditional(DATA, known, DATA.mean[known])
    position = list(np.flatnonzero(~known)).index(group)
    sigma[group] = np.sqrt(cov[position, position])
    known[group] = True
  return sigma


@jax.enable_x64(True)
def test_the_likelihood_of_a_gaussian_is_exact():
  x, z = (a.astype(float) for a in drawn(16))
  predict = gaussian.optimal(DATA, PROCESS)
  squares = autoregression.squared_errors(predict, PROCESS, TABLE, x, z)
  nats = autoregression.log_likelihood(squares, SIZES, conditional_deviations())
  exact = multivariate_normal.logpdf(x[..., 0], DATA.mean, DATA.cov)
  np.testing.assert_allclose(nats.sum(1), exact, atol=1e-9)
  # Fitted to many examples, the deviations are those of the conditionals.
  x, z = (a.astype(float) for a in drawn(20_000, seed=1))
  squares = autoregression.squared_errors(predict, PROCESS, TABLE, x, z)
  fitted = autoregression.deviations(squares, SIZES)
  np.testing.assert_allclose(fitted, conditional_deviations(), rtol=0.03)


def test_a_model_trained_on_eq_22_reaches_the_conditional_means():
  model = Predictor(MLP(out_channels=1, width=64, depth=2), PROCESS)
  steps, batch = 3000, 256
  adam = optax.adam(optax.cosine_decay_schedule(3e-3, steps))
  factor = jnp.asarray(np.linalg.cholesky(DATA.cov))

  def loss(params, key):
    keys = jax.random.split(key, 3)
    noise, z = jax.random.normal(keys[0], (2, batch, D, 1))
    x = jnp.asarray(DATA.mean)[:, None] + jnp.einsum('ij,bjc->bic', factor, noise)
    t = schedule.interval_ends(PLAN, schedule.training_times(keys[1], batch))
    alpha, rate = schedule.coefficients(PLAN, t), schedule.rates(PLAN, t)
    x, z = x.astype(jnp.float32), z.astype(jnp.float32)
    return losses.loss(model.bind(params), PROCESS, x, z, alpha, rate, 'velocity').mean()

  def step(state, key):
    params, moments = state
    updates, moments = adam.update(jax.grad(loss)(params, key), moments)
    return (optax.apply_updates(params, updates), moments), None

  params = model.init(jax.random.key(0))
  keys = jax.random.split(jax.random.key(1), steps)
  state = params, adam.init(params)
  (params, _), _ = jax.jit(lambda s: jax.lax.scan(step, s, keys))(state)
  trained = model.bind(params)

  # Sampling in one step a group gives the conditional means, whatever the noise.
  z = drawn(3, seed=7)[1]
  x = np.asarray(sampling.sample(trained, PROCESS, TABLE, z))[..., 0]
  for sample in x:
    known = np.zeros(D, bool)
    for group in ORDER:
      mean, _ = gaussian.conditional(DATA, known, sample[known])
      assert abs(sample[group] - mean[list(np.flatnonzero(~known)).index(group)]) < 0.1
      known[group] = True

  # Its likelihood is that of the data's own density, but for what training left.
  held_out, noise = drawn(4000, seed=2)
  fitted = autoregression.squared_errors(trained, PROCESS, TABLE, *drawn(4000, seed=3))
  sigma = autoregression.deviations(fitted, SIZES)
  squares = autoregression.squared_errors(trained, PROCESS, TABLE, held_out, noise)
  nats = autoregression.log_likelihood(squares, SIZES, sigma).sum(1)
  exact = multivariate_normal.logpdf(held_out[..., 0], DATA.mean, DATA.cov)
  assert 0 < float(np.mean(exact - nats)) < 0.05


def config(**sampling_options):
  c = digits_autoregressive.get_config()
  c.sampling.update(sampling_options)
  return c


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'steps': (128,)}, r'sampling.steps = \(128,\): train.times = discrete has taught'),
    ({'solver': 'heun'}, "sampling.solver = 'heun': train.times = discrete needs euler"),
  ],
)
def test_levels_that_the_network_never_saw_are_refused(options, message):
  c = config(**options)
  with pytest.raises(ConfigError, match=message):
    build.check_sampling(c, build.system(c))
  c.train.times = 'continuous'
  build.check_sampling(c, build.system(c))


def test_the_command_trains_samples_and_measures(tmp_path, capsys):
  workdir = tmp_path / 'run'
  args = runs.arguments(
    workdir,
    '--config.strategies.main.grouping=rows',
    '--config.strategies.main.groups=4,',
    '--config.train.times=discrete',
    '--config.sampling.steps=4',
    '--config.sampling.solver=euler',
    steps=2,
  )
  assert main.main(['', *args]) == 0
  assert main.main(['', *args, '--mode=sample', '--config.sampling.seeds=0-3']) == 0
  assert main.main(['', *args, '--mode=likelihood', '--config.likelihood.num=8']) == 0
  summary = json.loads((workdir / 'likelihood' / 'summary.json').read_text())
  assert np.isfinite(summary['total']['nats_per_dim']['mean'])
  assert len(summary['groups']) == 4
  assert (summary['solver'], summary['probes']) == (None, None)  # there is no ODE
  assert 'Gaussians about the predictions' in capsys.readouterr().out
