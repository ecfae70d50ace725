"""Networks of several shapes, trained for as long as one another on this machine."""

import json
import re

import pytest

from experiments import network_shapes
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs
from tests.support.experiments import check_report, rows, start

OF_ANY_SHAPE = [flag for flag in runs.TINY if not re.search('channels|multipliers', flag)]


def test_shapes_are_trained_for_as_long(tmp_path, monkeypatch):
  speeds = iter([3.2, 6.4])
  timed = []

  def training(config, *args):
    timed.append((config.model.name, config.model.ddpmpp.channels))
    return {'images_per_second': next(speeds)}

  monkeypatch.setattr(runs, 'TINY', OF_ANY_SHAPE)
  monkeypatch.setattr(network_shapes.throughput, 'training', training)
  flags = '--shapes=ddpmpp-8-1x1,group_causal-4-16', f'--minutes={1 / 6}', '--repeats=1'
  args = network_shapes, monkeypatch, 'digits', tmp_path, *flags
  start(*args, trained=False)
  start(*args, trained=False)  # nothing is timed again
  assert timed == [('ddpmpp', 8), ('group_causal', 32)]
  measured = rows(tmp_path, 'network_shapes')
  assert [(r['model'], r['trained_images']) for r in measured] == [
    ('ddpmpp-8-1x1-0', '32'),
    ('group_causal-4-16-0', '64'),
  ]
  config = json.loads((tmp_path / 'trained' / 'ddpmpp-8-1x1-0' / 'config.json').read_text())
  assert config['model']['ddpmpp']['multipliers'] == [1, 1]
  assert config['train']['anneal'] == 32
  check_report(tmp_path / 'network_shapes', 'group_causal-4-16', 'From low to high FD (pixels)')


def test_a_network_that_cannot_be_is_refused_before_any_is_timed(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(runs, 'TINY', OF_ANY_SHAPE)
  shapes = '--shapes=ddpmpp-32-1x2,ddpmpp-48-1x2'
  with pytest.raises(SystemExit) as stop:
    start(network_shapes, monkeypatch, 'digits', tmp_path, shapes, trained=False)
  assert stop.value.code == 2
  assert '144 channels cannot be split' in capsys.readouterr().err
  assert not (tmp_path / 'speeds.csv').exists()


@pytest.mark.parametrize(
  'shape', ['unet', 'ddpmpp-32', 'ddpmpp-32-1x', 'group_causal-4-192-1', 'context_unet-32-1x2']
)
def test_what_is_no_shape_is_refused(shape):
  with pytest.raises(ConfigError, match=f"'{shape}' is no shape"):
    network_shapes.options(shape)
