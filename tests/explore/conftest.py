"""Servers of --mode=explore with models that were not trained."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import pytest

from gdm_jax import build, main
from gdm_jax.data.contents import Contents
from gdm_jax.explore.server import Server
from gdm_jax.modes import explore
from gdm_jax.training.checkpoint import Checkpoints
from gdm_jax.training.step import init_state
from gdm_jax.training.workdir import adopt_config, describe, write_config
from tests.explore.client import Client, served
from tests.support import runs


class Served(NamedTuple):
  """A server in this process, its workdir, and the arguments that its commands are made of."""

  server: Server
  client: Client
  workdir: pathlib.Path
  arguments: Sequence[str]


def untrained(workdir, arguments) -> pathlib.Path:
  """A workdir as training leaves it, with random parameters.

  Those that training begins with would do nothing: their last layer is 0.
  """
  config = main.parse(['', *arguments]).config
  system = build.system(config)
  contents = Contents.of(build.data_source(config))
  state = jax.jit(lambda: init_state(config, system, build.optimizer(config)))()
  leaves, tree = jax.tree.flatten(state.ema)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noisy = [x + 0.1 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
  state = state.replace(ema=jax.tree.unflatten(tree, noisy))
  workdir.mkdir()
  write_config(config, contents, workdir)
  with Checkpoints(workdir) as checkpoints:
    checkpoints.save(state, {}, describe(config, contents))
  return workdir


def serve(workdir, *overrides, config='digits', steps=4, draft_solver='euler') -> Iterator[Served]:
  """A server with an untrained model; overrides: of what is trained. steps: of sampling."""
  flags = ('--mode=explore', '--config.explore.port=0', '--config.explore.browser=False')
  # With sampling's own solver drafts need no program of their own.
  flags += (f'--config.sampling.steps={steps}', f'--config.explore.draft_solver={draft_solver}')
  arguments = runs.arguments(workdir, *flags, config=config)
  untrained(workdir, [*arguments, *overrides])
  command = main.parse(['', *arguments])
  adopt_config(command.config, workdir, main.overridden(arguments))
  server = explore.start(command.config, workdir, arguments)
  with served(server):
    yield Served(server, Client(server.address), workdir, arguments)


@pytest.fixture(scope='session')
def labelled(tmp_path_factory):
  """Digits in 2 x 2 blocks, in any order, with labels."""
  workdir = tmp_path_factory.mktemp('labelled') / 'run'
  yield from serve(workdir, '--config.model.classes=10', draft_solver='adams_bashforth2')


@pytest.fixture(scope='session')
def bands(tmp_path_factory):
  """Digits in four bands, in one order."""
  workdir = tmp_path_factory.mktemp('bands') / 'run'
  yield from serve(workdir, config='digits_frequency')
