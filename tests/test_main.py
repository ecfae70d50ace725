"""The command: errors that name the key, and images that depend on their seed alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from PIL import Image

from configs import default
from gdm_jax import main
from tests.support import runs

TFDS = f'--config.machine.data_dir={runs.ROOT}/tests/golden/tfds'

BAD = {
  'unknown key': (['--config.train.bach=3'], '--config.train.bach=3: no such key'),
  'unknown section': (['--config.foo.bar=3'], '--config.foo.bar=3: no such key'),
  'not a number': (['--config.train.batch=many'], "'many'"),
  'zero batch': (['--config.train.batch=0'], 'train.batch = 0 must be positive'),
  'k larger than the axis': (
    ['--config.strategies.main.groups=9,2'],
    'strategies.main.groups = (9, 2): 9 groups along axis 0 of length 8',
  ),
  'wrong number of parts': (['--config.strategies.main.groups=3'], 'strategies.main.groups = (3,)'),
  'unknown grouping': (['--config.strategies.main.grouping=row'], "grouping = 'row': there are"),
  'order with a repeat': (
    ['--config.strategies.main.order=0,1,1,3'],
    'strategies.main.order = (0, 1, 1, 3): order [0, 1, 1, 3] is no permutation',
  ),
  'order too short': (['--config.strategies.main.order=1,0'], 'strategies.main.order = (1, 0)'),
  'sampling order': (['--config.sampling.order=0,0,1,2'], 'sampling.order = (0, 0, 1, 2)'),
  'cuts not ascending': (
    ['--config.strategies.main.cuts=0.5,0.4,0.9'],
    'strategies.main.cuts = (0.5, 0.4, 0.9)',
  ),
  'overlap outside': (
    ['--config.strategies.main.overlap=1.5'],
    'strategies.main.overlap = 1.5: overlap 1.5 must be 0, one group after another, to 1',
  ),
  'other cuts of intervals that overlap': (
    ['--config.strategies.main.overlap=0.5', '--config.sampling.cuts=0.2,0.4,0.6'],
    'sampling.cuts = (0.2, 0.4, 0.6): strategies.main has intervals that overlap, and along',
  ),
  'overlap at discrete times': (
    ['--config.strategies.main.overlap=0.5', '--config.train.times=discrete'],
    "train.times = 'discrete': strategies.main has intervals that overlap",
  ),
  'starts without ends': (
    ['--config.strategies.main.start=0,0.2,0.4,0.6'],
    'strategies.main.start = (0, 0.2, 0.4, 0.6), strategies.main.end = (): must be 4 numbers each',
  ),
  'intervals with a gap': (
    ['--config.strategies.main.start=0,0,0,0.6', '--config.strategies.main.end=0.5,0.5,0.5,1'],
    'strategies.main.end = (0.5, 0.5, 0.5, 1): no group moves from 0.5 to 0.6',
  ),
  'an interval backwards': (
    ['--config.strategies.main.start=0,0,0,0.6', '--config.strategies.main.end=1,1,1,0.5'],
    'group 3 has (0.6, 0.5]: must be 0 <= start < end <= 1',
  ),
  'intervals and an order': (
    [
      *('--config.strategies.main.start=0,0,0,0', '--config.strategies.main.end=1,1,1,1'),
      '--config.strategies.main.order=0,1,2,3',
    ],
    'they say everything; strategies.main.order = (0, 1, 2, 3) must be left out',
  ),
  'cuts outside': (['--config.sampling.cuts=0.5,0.7,1.5'], 'sampling.cuts = (0.5, 0.7, 1.5)'),
  'fewer steps than groups': (['--config.sampling.steps=3'], 'sampling.steps = (3,): steps = 3'),
  'steps for other groups': (['--config.sampling.steps=3,4'], 'sampling.steps = (3, 4)'),
  'unknown solver': (
    ['--config.sampling.solver=rk9'],
    "solver 'rk9' is unknown; there are adams_bashforth2",
  ),
  'unknown strategy': (['--config.sampling.strategy=x'], "sampling.strategy = 'x': there are main"),
  'unknown weighting': (['--config.train.weighting=x'], "train.weighting = 'x': there are"),
  'dropout of one': (
    ['--config.model.ddpmpp.dropout=1.0'],
    'model.ddpmpp.dropout = 1.0 must be below 1',
  ),
  'negative seed': (['--config.seed=-1'], 'seed = -1 must be positive or 0'),
  'channels without groups': (['--config.model.ddpmpp.channels=34'], '34 channels cannot be split'),
  'no multipliers': (['--config.model.ddpmpp.multipliers='], 'model.ddpmpp.multipliers = ()'),
  'bands of pixels': (
    ['--config.strategies.main.grouping=bands'],
    "strategies.main.grouping = 'bands', strategies.main.groups = (2, 2): bands need a frequency",
  ),
  'frequency space of pixels': (['--config.model.space=frequency'], "model.space = 'frequency'"),
  'anneal too early': (['--config.train.anneal=16'], 'train.anneal = 16 leaves nothing to learn'),
  'flipped points': (
    ['--config.data.flip=True', '--config.data.shape=(8,1)', '--config.model.name=mlp'],
    'data.flip = True needs images',
  ),
  'no cpu': (['--config.machine.cpu_devices=0'], 'cpu_devices = 0 must be 1 to 1024'),
  'unknown path': (['--config.path=x'], "path = 'x': there are linear"),
  'unknown data': (['--config.data.name=mnist'], "data.name='mnist'"),
  'data that is not there': (
    ['--config.data.name=tfds:svhn_cropped', TFDS],
    'tfds build svhn_cropped',
  ),
  'images of another size': (['--config.data.shape=(16,16,1)'], 'data.shape'),
  'a grid that cannot be halved': (
    ['--config.data.shape=(9,8,1)', '--config.model.ddpmpp.multipliers=1,1'],
    'data.shape = (9, 8, 1)',
  ),
  'unknown mode': (['--mode=paint'], '--mode=paint'),
  'unknown flag': (['--wrkdir=x'], 'wrkdir'),
  'no flag': (['train'], "'train' is no flag"),
  'seeds that are no range': (
    ['--config.sampling.seeds=0-9,x'],
    "sampling.seeds = '0-9,x': 'x' must be a number or a range",
  ),
  'seeds without commas': (['--config.sampling.seeds=0 5'], "'0 5' must be a number or a range"),
  'seeds beyond reason': (['--config.sampling.seeds=0-4000000000'], 'at most 10,000,000 seeds'),
  'seeds that descend': (['--config.sampling.seeds=9-3'], "'9-3' must be a number or a range"),
  'seeds too large': (['--config.sampling.seeds=4294967296'], "'4294967296' must be a number"),
  'guidance without labels': (
    ['--config.sampling.guidance=2.0'],
    'sampling.guidance = (2.0,) needs a model of labels, some hidden in training: '
    'model.classes = 0',
  ),
  'guidance without hidden labels': (
    [
      '--config.sampling.guidance=2.0',
      '--config.model.classes=10',
      '--config.train.label_dropout=0.0',
    ],
    'train.label_dropout = 0.0',
  ),
  'a label that is no class': (
    ['--config.sampling.labels=3,10', '--config.model.classes=10'],
    'sampling.labels = (3, 10): model.classes = 10',
  ),
  'other classes than the data': (
    ['--config.model.classes=7'],
    'model.classes = 7: digits has 10',
  ),
  'every label hidden': (
    ['--config.train.label_dropout=1.0'],
    'train.label_dropout = 1.0 must be below 1',
  ),
  'unknown format': (['--config.sampling.format=gif'], "sampling.format = 'gif': there are png"),
  'solver that needs what was not trained': (
    [
      '--mode=sample',
      '--config.sampling.solver=multistep_midpoint',
      '--config.train.weighting=active',
    ],
    'uses predictions of groups before they move, but train.weighting = active teaches groups',
  ),
  'negative probes': (
    ['--config.likelihood.probes=-1'],
    'likelihood.probes = -1 must be positive or 0',
  ),
  'likelihood of nothing': (['--config.likelihood.num=0'], 'likelihood.num = 0 must be positive'),
  'unknown likelihood solver': (
    ['--mode=likelihood', '--config.likelihood.solver=rk9'],
    "likelihood.solver = 'rk9': solver 'rk9' is unknown",
  ),
  'reversible likelihood solver': (
    ['--mode=likelihood', '--config.likelihood.solver=reversible_heun'],
    "likelihood.solver = 'reversible_heun': solver 'reversible_heun' evaluates before",
  ),
  'unknown likelihood split': (
    ['--mode=likelihood', '--config.likelihood.split=test'],
    "likelihood.split = 'test': data.split='test': digits has only train",
  ),
  'no checkpoint for a likelihood': (['--mode=likelihood'], 'holds no checkpoint; train first'),
  'no checkpoint': (['--mode=sample'], 'holds no checkpoint; train first'),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_names_the_key_and_writes_nothing(name, tmp_path, capsys):
  overrides, wanted = BAD[name]
  workdir = tmp_path / 'run'
  assert main.main(['', *runs.arguments(workdir, *overrides)]) == 2
  output = capsys.readouterr()
  assert wanted in output.err
  assert len(output.err.strip().splitlines()) <= 2
  assert not output.out
  assert not workdir.exists()


SEQUENCES = [
  key
  for key, value in flatten_dict(default.get_config().to_dict(), sep='.').items()
  if isinstance(value, tuple) and key != 'sampling.labels'
]


@pytest.mark.parametrize('key', SEQUENCES)
def test_a_word_among_numbers_is_named(key, tmp_path, capsys):
  assert main.main(['', *runs.arguments(tmp_path / 'run', f'--config.{key}=x')]) == 2
  assert f"{key} = ('x',): 'x' is no number" in capsys.readouterr().err


def test_missing_config(capsys):
  assert main.main(['', '--config=configs/nothing.py']) == 2
  assert '--config=configs/nothing.py: no such file' in capsys.readouterr().err
  assert main.main(['', '--mode=train']) == 2
  assert '--config is missing' in capsys.readouterr().err


def test_a_config_with_a_mistake(tmp_path, capsys):
  file = tmp_path / 'mine.py'
  file.write_text('def get_config(:\n')
  assert main.main(['', f'--config={file}']) == 2
  error = capsys.readouterr().err
  assert f'--config={file} cannot be read' in error
  assert 'Traceback' not in error


def test_the_last_of_repeated_flags_counts(tmp_path):
  file = runs.ROOT / 'configs' / 'digits.py'
  args = ['--config.sampling.steps=9', '--config.train.batch', '64', '--config.sampling.steps=4,5']
  command = main.parse(['', *args, f'--config={file}', '--dry_run'])
  assert command.config.sampling.steps == (4, 5)
  assert command.config.train.batch == 64
  assert (str(command.workdir), command.mode, command.dry_run) == ('runs/digits', 'train', True)


def test_compiled_programs_are_kept_where_asked(tmp_path):
  cache = f'--config.machine.compilation_cache={tmp_path / "cache"}'
  assert runs.command(*runs.arguments(tmp_path / 'run', cache)).returncode == 0
  assert any(file.name.startswith('jit_step') for file in (tmp_path / 'cache').iterdir())


def test_a_workdir_that_cannot_be_written(tmp_path, capsys):
  (tmp_path / 'file').write_text('not a folder')
  workdir = tmp_path / 'file' / 'run'
  assert main.main(['', *runs.arguments(workdir)]) == 2
  assert f'--workdir={workdir} cannot be written' in capsys.readouterr().err


def test_a_batch_that_does_not_divide_over_the_devices(tmp_path):
  result = runs.command(*runs.arguments(tmp_path / 'run', '--config.train.batch=12'), devices=8)
  assert result.returncode == 2
  assert result.stderr == 'error: train.batch = 12 does not divide over 8 devices\n'


def test_help_and_dry_run(tmp_path, capsys):
  assert main.main(['', '--help']) == 0
  assert '--config.KEY' in capsys.readouterr().out
  workdir = tmp_path / 'run'
  assert main.main(['', *runs.arguments(workdir, '--dry_run')]) == 0
  output = capsys.readouterr().out
  assert 'learning_rate: 0.002' in output
  assert 'enc_8x8_conv/kernel' in output
  assert 'GFLOP an image' in output
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('config', 'overrides'),
  [
    ('toy_2d', []),
    ('cifar10_strategies', [TFDS, '--config.data.name=tfds:cifar10']),
    ('cifar10_blockwise', [TFDS, '--config.model.dtype=bfloat16']),
    (
      'digits',
      [
        '--config.basis.name=blur',
        '--config.strategies.main.grouping=bands',
        '--config.strategies.main.groups=4,16',
        '--config.path=variance_preserving',
        '--config.train.weighting=unweighted',
        '--config.sampling.solver=heun',
      ],
    ),
  ],
)
def test_real_configs_shrunk_train_and_sample(config, overrides, tmp_path):
  workdir = tmp_path / 'run'
  args = runs.arguments(
    workdir, '--config.sampling.steps=9', '--config.log.grid=1', *overrides, config=config, steps=1
  )
  assert main.main(['', *args]) == 0
  assert main.main(['', *args, '--mode=sample', '--config.sampling.seeds=0-2']) == 0
  assert np.isfinite([row['loss'] for row in runs.metrics(workdir)]).all()
  assert json.loads((workdir / 'config.json').read_text())['train']['batch'] == runs.BATCH
  assert Image.open(workdir / 'samples.png').width > 8
  assert (workdir / 'samples' / 'grid.png').exists()


def test_training_needs_no_tensorflow(tmp_path):
  (tmp_path / 'tensorflow').mkdir()
  (tmp_path / 'tensorflow' / '__init__.py').write_text('raise SystemExit("tensorflow imported")')
  code = (
    'import sys; from gdm_jax import main; '
    'from gdm_jax.modes import complete, describe, likelihood, sample, train; '
    'assert "tensorflow" not in sys.modules'
  )
  result = subprocess.run(
    [sys.executable, '-c', code],
    cwd=runs.ROOT,
    env=runs.environment(PYTHONPATH=str(tmp_path)),
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
