"""The identity of a workdir: what may change in it, what generation adopts, and old configs."""

import json

import pytest

from gdm_jax import main
from gdm_jax.config import MODEL, RUN
from gdm_jax.data.contents import Contents
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training import workdir
from tests.support import runs

CONTENTS = Contents(3, ('cat', 'dog'), '0123456789abcdef')


def config(*overrides):
  return main.parse(['', *runs.arguments('unused', *overrides)]).config


def write_old(folder, **changes):
  """A config.json as versions before the sections of networks and machines wrote it."""
  c = config()
  tree = json.loads(c.to_json())
  machine, ddpmpp = tree.pop('machine'), tree['model'].pop('ddpmpp')
  tree['model'].pop('mlp')
  blur = tree['basis'].pop('blur')
  tree['model'].update(ddpmpp, **changes)
  for key in ('overlap', 'start', 'end'):
    del tree['strategies']['main'][key]
  tree['basis'].update(blur)
  tree['cpu_devices'] = machine['cpu_devices']
  for name in ('microbatches', 'remat', 'fsdp'):
    tree['train'][name] = machine[name]
  for name in ('data_dir', 'memory_gib'):
    tree['data'][name] = machine[name]
  (folder / 'config.json').write_text(json.dumps(tree))


def test_an_old_config_is_the_same_config(tmp_path):
  write_old(tmp_path)
  workdir.check_unchanged(config(), tmp_path, MODEL + RUN)
  with pytest.raises(ConfigError, match=r'model\.ddpmpp\.channels = 16 \(there 8\)'):
    workdir.check_unchanged(config('--config.model.ddpmpp.channels=16'), tmp_path, MODEL + RUN)
  with pytest.raises(ConfigError, match=r'strategies\.main\.overlap = 0\.5 \(there 0\.0\)'):
    workdir.check_unchanged(config('--config.strategies.main.overlap=0.5'), tmp_path, MODEL + RUN)


def test_an_old_config_is_adopted(tmp_path):
  write_old(tmp_path, channels=24, multipliers=[1, 2], dropout=0.25)
  c = config()
  workdir.adopt_config(c, tmp_path, ())
  assert (c.model.ddpmpp.channels, c.model.ddpmpp.multipliers) == (24, (1, 2))
  assert c.model.ddpmpp.dropout == 0.25
  assert (c.strategies.main.overlap, c.strategies.main.start) == (0.0, ())


def test_a_run_trained_by_an_old_version_resumes(tmp_path, capsys):
  arguments = runs.arguments(tmp_path / 'run', steps=2)
  assert main.main(['', *arguments]) == 0
  write_old(tmp_path / 'run')
  longer = f'--config.train.duration={4 * runs.BATCH}'
  text = json.loads((tmp_path / 'run' / 'config.json').read_text())
  text['train']['duration'] = 2 * runs.BATCH
  (tmp_path / 'run' / 'config.json').write_text(json.dumps(text))
  assert main.main(['', *arguments, longer]) == 0
  assert 'resumed from step 2' in capsys.readouterr().err


def test_requests_may_differ_and_what_is_trained_may_not(tmp_path):
  workdir.write_config(config(), CONTENTS, tmp_path)
  same = ('machine.microbatches=2', 'sampling.steps=9', 'train.duration=99999', 'log.grid=3')
  workdir.check_unchanged(config(*(f'--config.{key}' for key in same)), tmp_path, MODEL + RUN)
  for key in ('seed=1', 'train.ramp=65', 'data.flip=True', 'train.duration=16', 'path=x'):
    with pytest.raises(ConfigError, match=key.split('=')[0]):
      workdir.check_unchanged(config(f'--config.{key}'), tmp_path, MODEL + RUN)


def test_explicit_keys_are_not_adopted(tmp_path):
  saved = '--config.model.classes=10', '--config.seed=3', '--config.strategies.main.order=3,1,0,2'
  workdir.write_config(config(*saved), CONTENTS, tmp_path)
  c = config()
  workdir.adopt_config(c, tmp_path, {'seed'})
  assert (c.model.classes, c.seed, c.strategies.main.order) == (10, 0, (3, 1, 0, 2))
