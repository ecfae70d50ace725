"""The first hour's benchmark, on a tiny model."""

import json

import jax
import pytest

from experiments.benchmarks import accelerator, throughput
from gdm_jax.runtime.errors import ConfigError
from tests.support import experiments, runs

ALL = ['products', 'copy', 'training', 'sampling', 'training', 'training']
ALL += ['100 orders', 'cached groups', 'short training']


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(throughput, 'SIZES', (128,))
  monkeypatch.setattr(accelerator, 'COPIED', 2**16)
  monkeypatch.setattr(accelerator, 'DTYPES', ('float32',))


CACHED = """
from configs import digits_causal


def get_config():
  config = digits_causal.get_config()
  config.model.group_causal.update(width=16, depth=1, heads=1)
  config.strategies.main.update(grouping='rows', groups=(2,))
  return config
"""


def start(monkeypatch, workdir, *flags):
  workdir.mkdir(exist_ok=True)
  cached = workdir / 'cached.py'
  cached.write_text(CACHED)
  flags = (
    *('--repeats=1', '--batches=16', '--training_minutes=0.01', f'--cached={cached}'),
    *flags,
  )
  experiments.start(accelerator, monkeypatch, 'digits', workdir, *flags, trained=False)
  return json.loads((workdir / 'accelerator.json').read_text())


def test_measures_everything_once_and_writes_it_into_a_page(tmp_path, monkeypatch, capsys):
  walk = {'evaluations_per_second': 2.0, 'flop_per_evaluation': 1e6}  # as test_throughput has it
  monkeypatch.setattr(accelerator, 'sampling', lambda config, repeats: walk)
  page = tmp_path / 'page.md'
  page.write_text('before\n<!-- accelerator -->\nold\n<!-- end -->\nafter\n')
  entries = start(monkeypatch, tmp_path / 'run', '--minutes=0.001', f'--into={page}')
  assert [entry['what'] for entry in entries] == ALL[: len(entries)]
  assert len(entries) < len(ALL)
  assert f'measures the other {len(ALL) - len(entries)}' in capsys.readouterr().err

  entries = start(monkeypatch, tmp_path / 'run', '--minutes=10', f'--into={page}')
  assert [entry['what'] for entry in entries] == ALL
  assert not any('failed' in entry for entry in entries)
  rates = [v for e in entries for k, v in e.items() if k.endswith(('_per_second', '_seconds'))]
  assert len(rates) > 10
  assert min(rates) > 0
  assert len(list((tmp_path / 'run' / 'training').glob('**/*.png'))) > 1
  text = page.read_text()
  assert text.startswith('before\n')
  assert text.endswith('<!-- end -->\nafter\n')
  assert 'old' not in text
  assert text.count('\n| ') == len(ALL) + 2

  # Again: the file stays as it is, and nothing is measured.
  monkeypatch.setattr(accelerator, '_tried', None)
  assert start(monkeypatch, tmp_path / 'run', f'--into={page}') == entries
  assert page.read_text() == text


def test_what_does_not_fit_says_so_and_the_next_follows(tmp_path, monkeypatch, capsys):
  def too_large(*_):
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 80 GiB')

  def other(*_):
    raise ConfigError('train.batch = 16 does not divide')

  instant = dict.fromkeys(('_orders', '_cached', 'short_training', 'sampling'), other)
  for name, function in {'training': too_large, **instant}.items():
    monkeypatch.setattr(accelerator, name, function)
  entries = start(monkeypatch, tmp_path)
  assert [e['what'] for e in entries] == ALL
  assert [e.get('failed') for e in entries[2:4]] == [
    'out of memory',
    'train.batch = 16 does not divide',
  ]
  assert 'out of memory' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('flag', 'message'),
  [
    ('--batches=8,x', '--batches=8,x: must be numbers such as 64,256'),
    ('--batches=0', '--batches=0: must be numbers'),
    ('--peer=nowhere.py', '--peer=nowhere.py: no such file'),
    ('--cached=nowhere.py', 'nowhere.py: no such file'),
    ('--repeats=0', '--repeats=0 must be at least 1'),
    (f'--into={runs.ROOT}/LICENSE', 'has no lines <!-- accelerator --> and <!-- end -->'),
    ('--into=nowhere.md', '--into=nowhere.md: no such file'),
  ],
)
def test_bad_flags(flag, message, tmp_path, monkeypatch, capsys):
  with pytest.raises(SystemExit) as ended:
    start(monkeypatch, tmp_path, flag)
  assert ended.value.code == 2
  assert message in capsys.readouterr().err
