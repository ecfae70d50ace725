"""A run does not depend on where it was interrupted or on how many devices it has."""

import json
import os
import shutil
import signal
import subprocess
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from gdm_jax import build, main
from gdm_jax.data import pipeline
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime import distributed
from gdm_jax.runtime.errors import DataError
from gdm_jax.training import step as training_step
from gdm_jax.training.logger import Logger
from tests.support import runs


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  """A finished run of 24 steps."""
  workdir = tmp_path_factory.mktemp('unbroken') / 'run'
  assert main.main(['', *runs.arguments(workdir, steps=24)]) == 0
  return workdir


def test_leaves_what_the_readme_promises(unbroken):
  for name in ('config.json', 'metrics.jsonl', 'samples.png', 'generation.gif', 'loss.png'):
    assert (unbroken / name).stat().st_size > 0
  assert runs.steps_saved(unbroken) == [20, 22, 24]  # the last three
  rows = runs.metrics(unbroken)
  assert [row['step'] for row in rows] == list(range(1, 25))
  assert rows[-1]['images'] == 24 * runs.BATCH
  assert all(0 <= row['waiting_for_data'] <= 1 for row in rows)
  assert rows[-1]['loss'] < rows[0]['loss']


def test_resuming_equals_an_unbroken_run(unbroken, tmp_path, capsys):
  workdir = tmp_path / 'run'
  assert main.main(['', *runs.arguments(workdir, steps=12)]) == 0
  assert main.main(['', *runs.arguments(workdir, steps=24)]) == 0
  assert 'resumed from step 12' in capsys.readouterr().err
  runs.assert_same_bits(runs.arrays(workdir, 24), runs.arrays(unbroken, 24))
  losses = [[row['loss'] for row in runs.metrics(w)] for w in (workdir, unbroken)]
  assert losses[0] == losses[1]
  assert len(losses[0]) == 24


def test_lines_beyond_the_checkpoint_are_not_kept(unbroken, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(unbroken, workdir)
  with (workdir / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 25, "loss": 1.0}\n{"step": 26, "lo')
  assert main.main(['', *runs.arguments(workdir, steps=26)]) == 0
  assert [row['step'] for row in runs.metrics(workdir)] == list(range(1, 27))


def test_a_signal_saves_and_says_so(tmp_path):
  number, workdir = signal.SIGTERM, tmp_path / 'run'
  args = runs.arguments(workdir, steps=100_000, save_every=100_000)
  with runs.started(args, stderr=subprocess.PIPE, text=True) as process:
    _wait_for_step(workdir, 2, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
  assert process.returncode == 128 + number
  (step,) = runs.steps_saved(workdir)
  assert f'{number.name}: saved step {step:,}; run the same command again' in errors
  assert 'Traceback' not in errors


@pytest.mark.parametrize('number', distributed.STOPPING)
def test_every_signal_that_stops_is_heard_once(number):
  before = signal.signal(number, signal.SIG_DFL)  # nohup may have set it to be ignored
  try:
    with distributed.collect_signals() as received:
      os.kill(os.getpid(), number)
      assert received == [number]
    assert signal.getsignal(number) == signal.SIG_DFL
  finally:
    signal.signal(number, before)


@pytest.mark.skipif(not hasattr(signal, 'SIGHUP'), reason='this system has no SIGHUP')
def test_a_hangup_that_nohup_ignores_stays_ignored():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    with distributed.collect_signals() as received:
      os.kill(os.getpid(), signal.SIGHUP)
      os.kill(os.getpid(), signal.SIGUSR1)
      assert received == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
  finally:
    signal.signal(signal.SIGHUP, before)


def test_a_run_outlives_its_terminal(tmp_path):
  workdir = tmp_path / 'run'
  args = runs.arguments(workdir, '--config.log.every=16', steps=6)
  with runs.started(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
    process.stderr.close()
    assert process.wait(120) == 0
  assert runs.steps_saved(workdir)[-1] == 6


def test_data_that_break_in_mid_training_save_first(tmp_path, unbroken, monkeypatch, capsys):
  workdir, batches = tmp_path / 'run', pipeline.batches
  args = runs.arguments(workdir, steps=24, save_every=1000)
  calls = iter(range(100))

  def breaking(*args, **kwargs):
    iterator = batches(*args, **kwargs)
    intact = type(iterator).__next__

    def broken(self):
      if self is iterator and next(calls) == 3:
        raise DataError('a picture is gone')
      return intact(self)

    patch.setattr(type(iterator), '__next__', broken)
    return iterator

  with monkeypatch.context() as patch:
    patch.setattr(pipeline, 'batches', breaking)
    assert main.main(['', *args]) == 2
  assert 'error: a picture is gone' in capsys.readouterr().err
  assert runs.steps_saved(workdir) == [3]
  assert main.main(['', *args]) == 0
  runs.assert_same_bits(runs.arrays(workdir, 24), runs.arrays(unbroken, 24))


@pytest.mark.parametrize('moment', ['flush', 'draw'])
def test_a_signal_at_an_awkward_moment_is_not_lost(moment, tmp_path, capsys, monkeypatch):
  workdir = tmp_path / 'run'
  owner = {'flush': Logger, 'draw': Generator}[moment]
  method = {'flush': 'flush', 'draw': 'iterate'}[moment]
  original, calls = getattr(owner, method), []

  def interrupted(*args, **kwargs):
    calls.append(1)
    if len(calls) == 1:
      os.kill(os.getpid(), signal.SIGTERM)
    return original(*args, **kwargs)

  monkeypatch.setattr(owner, method, interrupted)
  args = runs.arguments(
    workdir, f'--config.log.samples_every={2 * runs.BATCH}', steps=1000, save_every=1000
  )
  assert main.main(['', *args]) == 128 + signal.SIGTERM
  (saved,) = runs.steps_saved(workdir)
  assert f'SIGTERM: saved step {saved}; run the same command again' in capsys.readouterr().err
  assert saved <= 4


@pytest.fixture(scope='module')
def eight(tmp_path_factory):
  """The first 20 steps of it, on eight devices."""
  workdir = tmp_path_factory.mktemp('eight') / 'run'
  result = runs.command(*runs.arguments(workdir, steps=20), devices=8)
  assert result.returncode == 0, result.stderr
  return workdir


def test_eight_devices_train_like_one(unbroken, eight):
  losses = [[row['loss'] for row in runs.metrics(w)[:20]] for w in (eight, unbroken)]
  np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
  assert losses[0] != losses[1]  # other programs, so other rounding: it did use eight


def test_a_checkpoint_moves_between_one_two_and_eight_devices(unbroken, eight, tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(eight, workdir)
  assert main.main(['', *runs.arguments(workdir, steps=22)]) == 0
  assert 'resumed from step 20' in capsys.readouterr().err
  done = runs.command(*runs.arguments(workdir, steps=24), devices=2)
  assert done.returncode == 0, done.stderr
  assert 'resumed from step 22' in done.stderr
  losses = [[row['loss'] for row in runs.metrics(w)] for w in (workdir, unbroken)]
  assert len(losses[0]) == 24
  np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path, capsys):
  workdir = tmp_path / 'run'
  args = runs.arguments(
    workdir, '--config.train.learning_rate=1e30', '--config.train.ramp=0', steps=8, save_every=1
  )
  assert main.main(['', *args]) == 1
  message = capsys.readouterr().err
  saved = runs.steps_saved(workdir)
  assert saved
  assert f'at step {saved[-1] + 1}; the last good one is step {saved[-1]} and stays' in message
  assert '--config.train.learning_rate (1e+30)' in message
  assert all(np.isfinite(x).all() for x in runs.arrays(workdir, saved[-1]))


def test_another_config_in_the_same_workdir_is_refused(unbroken, capsys):
  args = ['', *runs.arguments(unbroken, '--config.train.learning_rate=0.5', steps=24)]
  assert main.main(args) == 2
  assert 'train.learning_rate = 0.5 (there 0.002)' in capsys.readouterr().err
  assert main.main(['', *runs.arguments(unbroken, steps=20)]) == 2
  assert 'train.duration = 320 (there 384)' in capsys.readouterr().err
  assert main.main(['', *runs.arguments(unbroken, '--config.log.grid=1', steps=24)]) == 0


def test_a_checkpoint_of_another_network_is_refused(unbroken, capsys):
  config = unbroken / 'config.json'
  text = config.read_text()
  config.write_text(text.replace('"channels": 8', '"channels": 16'))
  try:
    args = runs.arguments(unbroken, '--config.model.ddpmpp.channels=16', '--mode=sample', steps=24)
    assert main.main(['', *args]) == 2
  finally:
    config.write_text(text)
  error = capsys.readouterr().err
  assert 'config.model describes another network than checkpoint 24' in error
  assert 'Traceback' not in error


def test_learning_rate_ramps_up_and_anneals():
  config = default.get_config()
  config.train.update(batch=100, ramp=1_000, learning_rate=0.5, anneal=10_000)
  optimizer = build.optimizer(config)
  params = {'w': jnp.zeros(3)}
  moments = optimizer.init(params)
  for step in range(100):
    # Adam's step under a constant gradient is the learning rate.
    update, moments = optimizer.update({'w': jnp.ones(3)}, moments, params)
    wanted = 0.5 * min((step + 1) * 100 / 1_000, 1) * (1 - step / 100)
    np.testing.assert_allclose(-update['w'], wanted, rtol=1e-4)


def test_ema_halves_in_its_halflife_after_the_ramp():
  config = default.get_config()
  config.train.update(batch=100, ema_halflife=1_000, ema_ramp=0.05)
  decay = [float(training_step._ema_decay(config.train, jnp.int32(s))) for s in range(1_000)]
  np.testing.assert_allclose(decay[500] ** 10, 0.5, rtol=1e-5)  # 10 steps are 1,000 images
  np.testing.assert_allclose(decay[100], 0.5 ** (100 / 500), rtol=1e-5)  # 5% of 10,000 images
  assert decay[0] == 0  # the average starts from the first step's parameters


def test_random_keys_differ_by_stream_step_and_seed():
  drawn = {
    (seed, step, name): tuple(np.asarray(jax.random.key_data(key)).tolist())
    for seed in (0, 1)
    for step in (0, 1, 2)
    for name, key in training_step.random_keys(seed, jnp.int32(step)).items()
  }
  assert len(set(drawn.values())) == len(drawn)


def _wait_for_step(workdir, step, process):
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    file = workdir / 'metrics.jsonl'
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    if lines and lines[-1].endswith('\n') and json.loads(lines[-1])['step'] >= step:
      return
    assert process.poll() is None, 'the run ended before it could be stopped'
    time.sleep(0.005)
  raise TimeoutError
