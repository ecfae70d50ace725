"""Two processes of two devices each, on one CPU, are one process of four."""

import contextlib
import csv
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from gdm_jax import main
from gdm_jax.runtime import distributed, rendezvous
from gdm_jax.runtime.distributed import Cluster
from tests.support import runs
from tests.support.fault_injection import last_step, until

FOREVER = {'steps': 100_000, 'save_every': 100_000}
SAMPLING = '--config.sampling.seeds=0-12'  # neither whole batches nor as many a device
PIXELS = ('--mode=evaluate', '--config.evaluation.features=pixels')


def arguments(workdir, *overrides, steps=20, save_every=10):
  return runs.arguments(workdir, *overrides, steps=steps, save_every=save_every)


class Pair:
  """The command in two processes; a context manager that leaves none of them behind."""

  def __init__(self, folder, args):
    self._said = [folder / f'process{i}.txt' for i in range(2)]
    with socket.socket() as free:
      free.bind(('localhost', 0))
      port = free.getsockname()[1]
    self.processes = [
      subprocess.Popen(
        [
          *(sys.executable, '-m', 'gdm_jax.main', *map(str, args)),
          *(f'--coordinator=localhost:{port}', '--num_processes=2', f'--process_id={i}'),
        ],
        cwd=runs.ROOT,
        env=runs.environment(2),
        stdout=subprocess.DEVNULL,
        stderr=said.open('w'),
      )
      for i, said in enumerate(self._said)
    ]

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in self.processes:
      with contextlib.suppress(ProcessLookupError):
        process.kill()
      process.wait()

  def said(self, i):
    return self._said[i].read_text()

  def wait(self, seconds=180):
    """The exit codes."""
    deadline = time.monotonic() + seconds
    return [process.wait(deadline - time.monotonic()) for process in self.processes]


def pair(folder, args):
  """What process 0 of two that end well had to say."""
  with Pair(folder, args) as both:
    assert both.wait() == [0, 0], both.said(0) + both.said(1)
    assert not [line for line in both.said(1).splitlines() if '[Gloo]' not in line]
    return both.said(0)


def alone(_, args):
  """The same of one process of four devices."""
  done = runs.command(*args, devices=4)
  assert done.returncode == 0, done.stderr
  return done.stderr


def losses(workdir):
  rows = runs.metrics(workdir)
  assert [row['step'] for row in rows] == list(range(1, 21))
  return [row['loss'] for row in rows]


def lost_after(step, workdir, copy):
  """A copy of a finished run of 20 steps, as if it had been lost after the checkpoint of `step`."""
  shutil.copytree(workdir, copy)
  for other in runs.steps_saved(copy):
    if other > step:
      shutil.rmtree(copy / 'checkpoints' / str(other))
  return copy


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """A run of one process of four devices."""
  folder = tmp_path_factory.mktemp('one')
  alone(folder, arguments(folder / 'run'))
  return folder / 'run'


@pytest.fixture(scope='module')
def two(tmp_path_factory):
  """The same run of two processes of two devices each."""
  folder = tmp_path_factory.mktemp('two')
  pair(folder, arguments(folder / 'run'))
  return folder / 'run'


def test_two_processes_train_like_one(one, two):
  np.testing.assert_allclose(losses(two), losses(one), rtol=1e-5, atol=1e-5)
  assert runs.steps_saved(two) == [10, 20]
  pictures = ('samples.png', 'generation.gif', 'loss.png')
  others = ('.lock', 'checkpoints', 'config.json', 'data.json', 'metrics.jsonl')
  assert sorted(f.name for f in two.iterdir()) == sorted((*pictures, *others))


@pytest.mark.parametrize(('first', 'then'), [('one', pair), ('two', alone)])
def test_each_goes_on_where_the_other_stopped(first, then, tmp_path, request):
  unbroken = request.getfixturevalue(first)
  workdir = lost_after(10, unbroken, tmp_path / 'run')
  assert 'resumed from step 10' in then(tmp_path, arguments(workdir))
  np.testing.assert_allclose(losses(workdir), losses(unbroken), rtol=1e-5, atol=1e-5)
  assert runs.steps_saved(workdir) == [10, 20]


def test_two_processes_sample_like_one(one, tmp_path):
  for form in ('png', 'npz'):
    for name, start in (('alone', alone), ('pair', pair)):
      folder = f'--config.sampling.folder={tmp_path}/{name}_{form}'
      form_of = f'--config.sampling.format={form}'
      said = start(tmp_path, arguments(one, '--mode=sample', SAMPLING, folder, form_of))
      assert '13 samples of step 20' in said
  pictures = [
    {f.name: f for f in (tmp_path / name).iterdir()} for name in ('alone_png', 'pair_png')
  ]
  assert pictures[0].keys() == pictures[1].keys()
  assert pictures[0].keys() == {f'{i:06d}.png' for i in range(13)} | {'grid.png', 'settings.json'}
  for name in pictures[0].keys() - {'settings.json'}:
    a, b = (np.asarray(Image.open(folder[name]), np.int32) for folder in pictures)
    assert np.abs(a - b).max() <= 1  # of 255; rounding may differ
  folders = [tmp_path / 'alone_npz', tmp_path / 'pair_npz']
  for folder in folders:
    names = {f.name for f in folder.iterdir()}
    assert names == {'samples.npz', 'grid.png', 'settings.json'}
  a, b = (np.load(folder / 'samples.npz') for folder in folders)
  np.testing.assert_array_equal(a['seeds'], np.arange(13))
  np.testing.assert_array_equal(b['seeds'], a['seeds'])
  np.testing.assert_allclose(b['x'], a['x'], rtol=0, atol=1e-5)


def test_two_processes_evaluate_like_one(one, tmp_path):
  found = []
  for name, start in (('alone', alone), ('pair', pair)):
    workdir = tmp_path / name
    shutil.copytree(one, workdir)
    start(tmp_path, arguments(workdir, *PIXELS, '--config.evaluation.seeds=0-39'))
    with (workdir / 'evaluation.csv').open(newline='') as f:
      rows = list(csv.DictReader(f))
    assert len(rows) == 1
    found += rows
  a, b = found
  numbers = {'distance', 'kernel', 'kernel_error', 'precision', 'recall'}
  assert {key: a[key] for key in a.keys() - numbers} == {key: b[key] for key in b.keys() - numbers}
  for key in numbers:
    # Images are equal to float32's rounding, and a pixel between two bytes may become either.
    # An error is as exact as the kernel distances of the blocks that it is the spread of.
    scale = float(a['kernel' if key == 'kernel_error' else key])
    np.testing.assert_allclose(float(b[key]), float(a[key]), rtol=0, atol=1e-4 * scale, err_msg=key)
  assert float(a['distance']) > 0


def test_a_signal_to_one_stops_both_at_one_step(two, tmp_path):
  workdir = tmp_path / 'run'
  with Pair(tmp_path, arguments(workdir)) as both:
    # Then both listen, and neither has trained.
    until(lambda: 'compiling the training step' in both.said(0), *both.processes)
    both.processes[1].send_signal(signal.SIGTERM)
    assert both.wait() == [128 + signal.SIGTERM] * 2, both.said(0) + both.said(1)
    step = runs.steps_saved(workdir)[-1]
    assert (
      distributed.STOP_DELAY_STEPS < step < 20
    )  # not process 1's next, which process 0 may have passed
    for i in range(2):
      assert f'SIGTERM: saved step {step}; run the same command again' in both.said(i)
      assert 'Traceback' not in both.said(i)
  assert f'resumed from step {step}' in pair(tmp_path, arguments(workdir))
  assert losses(workdir) == losses(two)


@pytest.mark.parametrize('killed', [0, 1])
def test_where_one_is_killed_the_other_ends_with_a_message(killed, tmp_path):
  workdir = tmp_path / 'run'
  with Pair(tmp_path, arguments(workdir, **FOREVER)) as both:
    until(lambda: last_step(workdir) >= 2, *both.processes)
    both.processes[killed].kill()
    assert both.processes[1 - killed].wait(60) != 0
    # Ours, or that of jax, which ends a process that waits for the lost one.
    words = ('cannot go on together', 'another task died')
    assert any(some in both.said(1 - killed) for some in words)


def test_where_one_fails_unforeseen_the_other_ends_too(tmp_path):
  workdir = tmp_path / 'run'
  (workdir / '.lock').mkdir(parents=True)  # process 0 alone opens it
  with Pair(tmp_path, arguments(workdir, **FOREVER)) as both:
    until(lambda: both.processes[0].poll() is not None, seconds=60)
    assert both.processes[0].returncode == 1
    assert f'error: {workdir}/.lock: Is a directory' in both.said(0)
    assert both.processes[1].wait(60) != 0


def test_a_signal_ends_what_has_nothing_to_save(one, tmp_path):
  folder = tmp_path / 'samples'
  there = f'--config.sampling.folder={folder}'
  args = arguments(one, '--mode=sample', '--config.sampling.seeds=0-999999', there)
  with Pair(tmp_path, args) as both:
    until(lambda: any(folder.glob('*.png')), *both.processes)
    both.processes[1].send_signal(signal.SIGTERM)
    assert both.processes[1].wait(20) == -signal.SIGTERM


def test_a_second_pair_in_a_workdir_is_refused(tmp_path):
  (tmp_path / 'second').mkdir()
  workdir = tmp_path / 'run'
  with Pair(tmp_path, arguments(workdir, **FOREVER)) as first:
    until(lambda: last_step(workdir) >= 1, *first.processes)
    with Pair(tmp_path / 'second', arguments(workdir, **FOREVER)) as second:
      assert second.wait() == [2, 2], second.said(0) + second.said(1)
      for i in range(2):
        assert 'another run is training there' in second.said(i)
    assert [process.poll() for process in first.processes] == [None, None]


PARTS = (
  ['--coordinator=localhost:1234'],
  ['--num_processes=2', '--process_id=0'],
  ['--coordinator=localhost:1234', '--num_processes=2'],
  ['--coordinator=localhost:1234', '--num_processes=2', '--process_id=2'],
)


@pytest.mark.parametrize('part', PARTS)
def test_a_part_of_the_three_flags_is_refused(part, tmp_path, capsys):
  assert main.main(['', *arguments(tmp_path / 'run', *part)]) == 2
  error = capsys.readouterr().err
  for flag in ('--coordinator=', '--num_processes=', '--process_id='):
    assert flag in error
  assert 'give all three' in error
  assert not (tmp_path / 'run').exists()


SLURM = {'SLURM_PROCID': '0', 'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '4'}
EXPLICIT = Cluster('host:1234', 2, 1)
FOUND = {
  'nothing': ({}, Cluster(), None),
  'one task of SLURM': ({**SLURM, 'SLURM_STEP_NUM_TASKS': '1'}, Cluster(), None),
  'four tasks of SLURM': ({**SLURM, 'SLURM_STEP_NUM_TASKS': '4'}, Cluster(), ()),
  'a batch script of SLURM, which runs once': (SLURM, Cluster(), None),
  'a TPU machine': ({'TPU_WORKER_HOSTNAMES': 'localhost'}, Cluster(), None),
  'a TPU pod slice': ({'TPU_WORKER_HOSTNAMES': 't0,t1'}, Cluster(), ()),
  'asked for': ({}, Cluster(detect=True), ()),
  'given': ({}, EXPLICIT, ('host:1234', 2, 1)),
  'given, though SLURM has others': (
    {**SLURM, 'SLURM_STEP_NUM_TASKS': '4'},
    EXPLICIT,
    ('host:1234', 2, 1),
  ),
}


@pytest.mark.parametrize('name', FOUND)
def test_the_environment_says_whether_there_are_several(name, monkeypatch):
  variables, cluster, wanted = FOUND[name]
  calls = []
  for key in ('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS', 'SLURM_NTASKS', 'TPU_WORKER_HOSTNAMES'):
    monkeypatch.delenv(key, raising=False)
  for key, value in variables.items():
    monkeypatch.setenv(key, value)
  monkeypatch.setattr(jax.distributed, 'initialize', lambda *args, **_: calls.append(args))
  monkeypatch.setattr(rendezvous, 'meet', lambda *args: None)
  distributed.join(cluster)
  assert calls == ([] if wanted is None else [wanted])


def test_processes_that_do_not_meet_are_bad_input(tmp_path, capsys, monkeypatch):
  def fail(*_, **__):
    raise RuntimeError('nobody there')

  monkeypatch.setattr(jax.distributed, 'initialize', fail)
  assert main.main(['', *arguments(tmp_path / 'run', '--distributed')]) == 2
  error = capsys.readouterr().err
  assert 'the processes of the run did not meet: nobody there' in error
