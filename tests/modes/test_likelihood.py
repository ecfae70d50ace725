"""--mode=likelihood: its files, its table, and that no example depends on the batch."""

import csv
import json

import jax
import numpy as np
import pytest

from gdm_jax import build, main
from gdm_jax.data import sources
from gdm_jax.training.checkpoint import Checkpoints
from gdm_jax.training.step import TrainState
from gdm_jax.training.workdir import describe
from tests.support import runs

LABELS = '--config.model.classes=10'


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A workdir whose model is random, which is as good a density as any."""
  workdir, rng = tmp_path_factory.mktemp('likelihood') / 'run', np.random.default_rng(0)
  with jax.enable_x64(False):
    config, *_ = main.parse(['', *runs.arguments(workdir, LABELS)])
    shapes = jax.eval_shape(build.system(config).predictor.init, jax.random.key(0))
    params = jax.tree.map(lambda p: rng.normal(0, 0.1, p.shape).astype(p.dtype), shapes)
    with Checkpoints(workdir, keep=1) as checkpoints:
      checkpoints.save(TrainState(np.int32(2), {}, params, ()), {}, describe(config))
  return workdir


def reported(workdir, *overrides):
  with jax.enable_x64(False):
    args = ['--mode=likelihood', LABELS, '--config.sampling.order=2,0,1,3', *overrides]
    assert main.main(['', *runs.arguments(workdir, *args)]) == 0
  folder = workdir / 'likelihood'
  assert (folder / 'likelihood.png').stat().st_size > 1000
  with (folder / 'likelihood.csv').open() as file:
    rows = list(csv.DictReader(file))
  return json.loads((folder / 'summary.json').read_text()), rows


def test_the_mode_reports_the_total_and_its_groups(trained, capsys):
  summary, rows = reported(trained, '--config.likelihood.num=10')
  assert list(rows[0]) == ['index', 'label', 'nats', 'group_2', 'group_0', 'group_1', 'group_3']
  nats = np.array([[float(row[f'group_{group}']) for group in summary['order']] for row in rows])
  total = np.array([float(row['nats']) for row in rows])
  assert [int(row['index']) for row in rows] == list(range(10))
  own = sources.load('digits', 'train', (8, 8, 1)).label[:10]
  assert [int(row['label']) for row in rows] == own.tolist()
  np.testing.assert_allclose(nats.sum(1), total)

  assert summary['order'] == [2, 0, 1, 3]
  assert summary['examples'] == 10
  assert summary['dequantised']
  assert [group['dims'] for group in summary['groups']] == [16] * 4
  for values, of in zip([*nats.T, total], [*summary['groups'], summary['total']], strict=True):
    per_dim = values / of['dims']
    wanted = [per_dim.mean(), per_dim.std(ddof=1) / np.sqrt(10)]
    np.testing.assert_allclose(list(of['nats_per_dim'].values()), wanted)
    bits = np.array([-wanted[0], wanted[1]]) / np.log(2)
    np.testing.assert_allclose(list(of['bits_per_dim'].values()), bits)
  printed = capsys.readouterr().out
  assert '10 examples of digits, train' in printed
  assert f'{summary["total"]["bits_per_dim"]["mean"]:.4f}' in printed

  # Neither the batch nor the number of examples touches an example.
  _, fewer = reported(
    trained,
    '--config.likelihood.num=3',
    '--config.sampling.batch=3',
    '--config.machine.cpu_devices=1',
  )
  for one, other in zip(fewer, rows, strict=False):
    np.testing.assert_allclose(float(one['nats']), float(other['nats']), rtol=1e-4)


def test_the_mode_on_one_example_with_the_exact_trace(trained):
  summary, rows = reported(trained, '--config.likelihood.num=1', '--config.likelihood.probes=0')
  assert summary['total']['nats_per_dim']['standard_error'] is None
  assert -4 < summary['total']['nats_per_dim']['mean'] == float(rows[0]['nats']) / 64 < 0
