"""The search over orders: costs against their definitions, resuming, the numbers of the check."""

import itertools
import math

import jax
import numpy as np
import pandas as pd
import pytest

from experiments import order_search
from experiments.lib import costs, study
from gdm_jax import build, conditionals, likelihood, main, ordering
from gdm_jax.data.units import from_uint8
from gdm_jax.evaluation.evaluator import Checkpoint
from gdm_jax.runtime import sharding
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs
from tests.support.causal import random_params
from tests.support.experiments import check_report, rows, start, trained

FLAGS = ('--examples=4', '--levels=2', '--steps=1', '--orders=6', '--repeats=2')


MLP = ('--config.model.name=mlp', *runs.TINY_MLP)
CAUSAL = [f'--config.model.group_causal.{key}' for key in ('width=16', 'depth=1')]


@pytest.fixture(scope='module')
def three(tmp_path_factory):
  return trained(tmp_path_factory, 'digits', '--config.strategies.main.groups=1,3', *MLP)


def untrained(config, *arguments):
  """A model with random parameters and no workdir."""
  argv = ['', f'--config={runs.ROOT}/configs/{config}.py', '--workdir=none', *runs.TINY, *arguments]
  model = object.__new__(study.Model)
  model.name, model.config, model.mesh = 'random', main.parse(argv).config, sharding.mesh()
  model.system = build.system(model.config)
  model.checkpoint = Checkpoint(random_params(model.system.predictor, 0.1), 0)
  return model


def test_a_search_measures_every_pair_once_and_resumes_with_the_same_page(
  three, monkeypatch, capsys
):
  names, flags = ('loss', 'bound'), FLAGS
  start(order_search, monkeypatch, 'digits', three, *flags)
  folder = three / 'order_search'
  values = pd.read_csv(folder / 'values.csv', dtype=str)
  assert values['of'].value_counts().to_dict() == {
    **dict.fromkeys(names, 3 * 2**2),
    'order': 6 * 2,
  }
  assert not values.duplicated(['of', 'examples', 'cell']).any()
  assert set(values[values['of'] == 'order']['examples']) == {'4-7', '8-11'}

  # Every order is there, with the sum of its costs.
  table = rows(three, 'order_search')
  orders = ['-'.join(map(str, order)) for order in itertools.permutations(range(3))]
  assert [row['order'] for row in table] == orders
  for name in names:
    means = values[values['of'] == name].set_index('cell')['mean'].astype(float)
    cells = ('>1', '1>0', '0-1>2')
    total = float(next(row[name] for row in table if row['order'] == '1-0-2'))
    assert total == pytest.approx(sum(means[cell] for cell in cells), rel=1e-4)
    mean = np.mean([float(row[name]) for row in table])
    assert float(table[0][f'{name}_mean_of_all']) == pytest.approx(mean, rel=1e-4)
    assert min(float(row[f'{name}_above_best']) for row in table) == 0
  check_report(folder, 'rank correlation (Spearman)', '6 orders, 12 costs', 'standard errors')
  assert 'of 6 orders cannot be told' in capsys.readouterr().out

  # A rerun after a kill measures only what is missing.
  whole, page = (folder / 'values.csv').read_bytes(), (folder / 'report.html').read_bytes()
  lines = whole.splitlines(keepends=True)
  (folder / 'values.csv').write_bytes(b''.join(lines[:20]))
  start(order_search, monkeypatch, 'digits', three, *flags)
  assert sorted((folder / 'values.csv').read_bytes().splitlines()) == sorted(whole.splitlines())
  monkeypatch.setattr(costs.Costs, '_pairs', None)
  monkeypatch.setattr(costs.Costs, '_along', None)
  start(order_search, monkeypatch, 'digits', three, *flags)
  assert (folder / 'report.html').read_bytes() == page


def test_the_costs_are_those_of_conditionals(tmp_path):
  model = untrained('digits', '--config.strategies.main.groups=1,3', *MLP)
  measured = order_search.costs_of(model, tmp_path / 'values.csv', levels=2, steps=2)
  numbers, pair = range(3, 6), (0b101, 1)
  # The likelihood of pairs is compared with that of orders below.
  values = {of: measured.of_pairs(of, numbers, [pair])[pair] for of in ('loss', 'bound', 'error')}
  along = measured.of_orders([(2, 0, 1)], numbers)[0]

  seeds = np.array(numbers, np.uint32)
  x = likelihood.dequantise(from_uint8(measured.source[np.array(numbers)]['x']), 1 / 8, seeds)
  predict = model.system.predictor.bind(model.checkpoint.params, np.full(3, -1, np.int32))
  process, known, moving = model.system.process, np.array([1, 0, 1], bool), np.arange(3) == 1
  arguments = predict, process, x
  taus, weights = conditionals.comb(2)
  errors, noises = jax.jit(lambda: conditionals.squares(*arguments, seeds, known, moving, taus))()
  size = int((np.asarray(process.grouping.labels) == 1).sum())
  z = conditionals.noise(seeds, 0, x.shape[1:])
  probes = likelihood.rademacher(seeds, 1, x.shape[1:])
  solver = moving, 2, 'euler', 32
  exact = {
    'loss': conditionals.loss(errors, weights),
    'bound': conditionals.bound(errors, noises, size, taus, weights),
    'error': jax.jit(lambda: conditionals.solver_error(*arguments, z, known, *solver))(),
  }
  for of, value in values.items():
    np.testing.assert_allclose(value, exact[of], rtol=2e-3, err_msg=of)
  table = np.array(
    [[0, 0, 0], [0, 0, 0.75], [0, 0, 1], [0.75, 0, 1], [1, 0, 1], [1, 0.75, 1], [1, 1, 1]]
  )
  np.testing.assert_array_equal(measured.table((2, 0, 1)), table)
  nats = jax.jit(
    lambda: likelihood.log_likelihood(
      predict, process, table.astype(np.float32), x, probes, 'rk4'
    ).sum(-1)
  )()
  np.testing.assert_allclose(along, -nats, rtol=1e-4)


def test_costs_of_a_group_causal_network_are_exact(tmp_path, monkeypatch):
  """Their sum along an order is the likelihood of that order, and the cache changes nothing."""
  model = untrained('digits_causal', *CAUSAL, '--config.likelihood.probes=0')
  measured = order_search.costs_of(model, tmp_path / 'values.csv', levels=2, steps=1)
  numbers, orders = range(2), [(2, 0, 3, 1), (1, 3, 0, 2)]
  pairs = {(sum(1 << i for i in order[:n]), j) for order in orders for n, j in enumerate(order)}
  nll = measured.of_pairs('nll', numbers, sorted(pairs))
  totals = ordering.totals(nll, np.array(orders))
  np.testing.assert_allclose(totals, measured.of_orders(orders, numbers), rtol=1e-4)
  loss = measured.of_pairs('loss', numbers, [(0b1001, 2)])[0b1001, 2]
  monkeypatch.setattr(costs, 'can_cache', lambda *_: False)
  plain = order_search.costs_of(model, tmp_path / 'plain.csv', levels=2, steps=1)
  values = plain.of_pairs('loss', numbers, [(0b1001, 2)])[0b1001, 2]
  np.testing.assert_allclose(values, loss, rtol=1e-4)


def planted(correlation=1.0, seed=0):
  """Rows of 60 orders of 5 groups whose measured cost follows the predicted one, or does not."""
  rng, k = np.random.default_rng(seed), 5
  table = rng.normal(size=(2**k, k, 1)) + 0.1 * rng.normal(size=(2**k, k, 40))
  orders = list(itertools.islice(itertools.permutations(range(k)), 60))
  columns = order_search.predictions('loss', table, orders)
  truth = np.array(columns['loss'], float)
  noise = rng.normal(size=truth.shape) * truth.std()
  along = correlation * truth + (1 - correlation) * noise
  repeats = [along[:, None] + 0.01 * rng.normal(size=(60, 20)) for _ in range(2)]
  columns |= order_search.measurements(repeats, [True] * 60)
  settings = {'examples': '40', 'data': 'd', 'split': 's', 'loss_how': '8 levels'}
  joined = ['-'.join(map(str, order)) for order in orders]
  return pd.DataFrame({'order': joined, 'random': 'True', **columns, **settings}), table


def test_the_check_finds_a_prediction_that_holds_and_one_that_does_not():
  held, table = planted()
  page, findings = order_search.summarise(held)
  text = ' '.join(findings)
  assert 'prediction 1.00 for loss (whose halves agree by 1.00)' in text
  assert '2 repeats agree by 1.00, so that no prediction can be expected to exceed 1.00' in text
  best, total = ordering.best_order(table.mean(2), 5)
  assert float(held['loss_least'].iloc[0]) == pytest.approx(total, rel=1e-5)
  if '-'.join(map(str, best)) in set(held['order']):
    assert page['order'].iloc[0] == '-'.join(map(str, best))
  failed, _ = planted(0.0)
  _, findings = order_search.summarise(failed)
  correlation = float(' '.join(findings).split('prediction ')[1].split(' for')[0])
  assert abs(correlation) < 0.4


@pytest.mark.parametrize(
  ('agreement', 'repeats', 'expected'),
  [(1, 2, 1), (0, 3, 0), (-0.2, 3, 0), (0.5, 2, (2 / 3) ** 0.5)],
)
def test_noisy_repeats_bound_the_correlation(agreement, repeats, expected):
  assert order_search.ceiling(agreement, repeats) == pytest.approx(expected)


def test_the_ceiling_is_what_a_perfect_prediction_reaches():
  rng = np.random.default_rng(0)
  truth = rng.normal(size=20_000)
  repeats = truth[:, None] + rng.normal(size=(20_000, 3))
  agreement = np.corrcoef(repeats[:, 0], repeats[:, 1])[0, 1]
  reached = np.corrcoef(truth, repeats.mean(1))[0, 1]
  assert order_search.ceiling(agreement, 3) == pytest.approx(reached, abs=0.01)


def test_orders_like_the_best_are_counted_or_estimated(monkeypatch):
  values = np.random.default_rng(0).normal(size=(16, 4, 10))
  best, _ = ordering.best_order(values.mean(2), 4)
  exact = order_search.alike_orders(values, best)
  assert exact[1] == math.factorial(4)
  monkeypatch.setattr(order_search, 'ALL', 20 * 1008)
  monkeypatch.setattr(order_search.math, 'factorial', lambda n: 10**9)
  count, drawn = order_search.alike_orders(values, best)
  assert drawn == 20 * 1008
  assert count / drawn == pytest.approx(exact[0] / exact[1], abs=0.02)


def test_discrete_times_have_no_costs(tmp_path):
  model = untrained('digits_causal_autoregressive', *CAUSAL)
  with pytest.raises(ConfigError, match=r"train\.times = 'discrete'"):
    order_search.costs_of(model, tmp_path / 'values.csv', levels=2, steps=1)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (('--costs=loss,los',), "--costs=loss,los: 'los' is none of loss, bound, nll, error"),
    (('--examples=1',), '--examples=1 must be at least 2'),
    (('--examples=900', '--repeats=1'), 'examples 900-1799 of digits, train, wanted, which has'),
    (('--config.likelihood.solver=reversible_heun',), 'likelihood.solver'),
  ],
)
def test_what_cannot_be_searched_is_one_line(three, monkeypatch, capsys, flags, message):
  monkeypatch.setattr(
    costs.Costs,
    '_pairs',
    lambda self, together, numbers, *_: [np.zeros((costs.AT_ONCE, len(numbers))) for _ in together],
  )
  with pytest.raises(SystemExit) as stop:
    start(order_search, monkeypatch, 'digits', three, *flags)
  assert stop.value.code == 2
  assert message in capsys.readouterr().err
