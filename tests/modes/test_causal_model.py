"""A group-causal model in the command: every mode, with the cache and without."""

import csv

import numpy as np
import pytest
from PIL import Image

from gdm_jax import main
from tests.support import runs

MODEL = (
  *('--config.model.group_causal.width=16', '--config.model.group_causal.depth=2'),
  *('--config.sampling.steps=8', '--config.sampling.seeds=0-4'),
)


def arguments(workdir, *overrides):
  return runs.arguments(workdir, *MODEL, *overrides, config='digits_causal', steps=3)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('causal') / 'run'
  assert main.main(['', *arguments(workdir)]) == 0
  assert np.isfinite([row['loss'] for row in runs.metrics(workdir)]).all()
  assert (workdir / 'generation.gif').exists()
  return workdir


def both(trained, *overrides):
  """The workdir's files of a mode with the cache, and without it."""
  for cache in (True, False):
    args = arguments(trained, f'--config.sampling.cache={cache}', *overrides)
    assert main.main(['', *args]) == 0
    yield


def pictures(folder):
  return [np.asarray(Image.open(file)).astype(int) for file in sorted(folder.glob('0*.png'))]


def test_samples_are_the_same_with_the_cache_and_on_more_devices(trained):
  for folder, cache, devices in [('a', True, 1), ('b', False, 1), ('c', True, 8)]:
    args = [f'--config.sampling.folder={folder}', f'--config.sampling.cache={cache}']
    result = runs.command(*arguments(trained, '--mode=sample', *args), devices=devices)
    assert result.returncode == 0, result.stderr
  a, b, c = (pictures(trained / folder) for folder in 'abc')
  assert len(a) == 5
  assert np.abs(a[0] - a[1]).max() > 20
  assert max(np.abs(x - y).max() for x, y in zip(a + a, b + c, strict=True)) <= 1


def test_completion_and_encoding(trained, tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
  Image.fromarray(picture).save(tmp_path / 'a.png')
  found = []
  for _ in both(
    trained,
    '--mode=complete',
    f'--config.complete.images={tmp_path / "a.png"}',
    '--config.complete.groups=1,',
  ):
    files = sorted((trained / 'completed').rglob('*.png'))
    found.append([np.asarray(Image.open(file)).astype(int) for file in files])
  assert found[0]
  for x, y in zip(*found, strict=True):
    assert np.abs(x - y).max() <= 1


@pytest.mark.parametrize('probes', [0, 2])
def test_likelihood(probes, trained):
  found = []
  for _ in both(
    trained,
    '--mode=likelihood',
    '--config.likelihood.num=3',
    f'--config.likelihood.probes={probes}',
    '--config.sampling.order=2,0,3,1',
  ):
    with (trained / 'likelihood' / 'likelihood.csv').open() as file:
      found.append([[float(v) for v in row.values()] for row in csv.DictReader(file)])
  assert len(found[0]) == 3
  np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
  ('overrides', 'message'),
  [
    (
      ['--config.model.group_causal.patch=5'],
      "'patch': 5, 'width': 16}: patch = 5: no group holds a whole patch, 25 positions",
    ),
    (['--config.model.group_causal.heads=3'], 'heads = 3: width = 16 must be a multiple of twice'),
    (['--config.model.group_causal.depth=0'], 'model.group_causal.depth = 0 must be positive'),
    (
      ['--config.model.group_causal.dropout=1.0'],
      'model.group_causal.dropout = 1.0 must be below 1',
    ),
    (
      [
        '--config.basis.name=cosine',
        '--config.strategies.main.grouping=bands',
        '--config.strategies.main.groups=4,',
      ],
      "model.space = 'pixel': model.name = group_causal works on the elements of the groups",
    ),
  ],
)
def test_bad_input_names_the_key(overrides, message, tmp_path, capsys):
  assert main.main(['', *arguments(tmp_path / 'run', *overrides)]) == 2
  assert message in capsys.readouterr().err
