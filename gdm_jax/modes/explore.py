"""--mode=explore: a page on this machine, where one drags latents and sees the picture change."""

import os
import pathlib
import signal
import sys
import webbrowser
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from gdm_jax import build
from gdm_jax.explore.answers import Answers
from gdm_jax.explore.explorer import Explorer, check_pictures
from gdm_jax.explore.pictures import Pictures
from gdm_jax.explore.server import Server, serve
from gdm_jax.runtime import console, exported, sharding
from gdm_jax.runtime.errors import ConfigError
from gdm_jax.training.workdir import contents_of, load_ema


def run(config: ConfigDict, workdir: pathlib.Path):
  """Prints the address of the page, and serves it until Ctrl-C. Raises as `start` does."""
  server = start(config, workdir, sys.argv[1:])
  # A shell's & leaves SIGINT ignored; `kill -INT` must end it all the same.
  signal.signal(signal.SIGINT, signal.default_int_handler)
  console.log(f'{server.address} shows {config.checkpoint.model or workdir}; Ctrl-C ends it')
  if config.explore.browser and _has_screen():
    webbrowser.open(server.address)
  serve(server)


def start(config: ConfigDict, workdir: pathlib.Path, arguments: Sequence[str]) -> Server:
  """A server that listens and has compiled what the page asks first.

  arguments: the flags of this command, of which those of the page's commands are made. Raises
  ConfigError for data that are no pictures, a port that is taken, a host that is not this
  machine's, and a workdir without a checkpoint of this config.
  """
  check_pictures(config)
  if jax.process_count() > 1:
    raise ConfigError(f'--mode=explore serves from one process, not {jax.process_count()}')
  system = build.system(config)
  build.check_sampling(config, system)
  build.solver(config, 'explore.draft_solver')
  server = Server(config.explore.host, config.explore.port)  # before any work: it may be taken
  try:
    params, step = load_ema(config, workdir, system, sharding.mesh())
    contents = contents_of(config, workdir)
    explorer = Explorer(config, system, params, Pictures(tuple(config.data.shape)))
    classes = contents.classes if contents and config.model.classes else ()
    name = exported.short_name(config.checkpoint.model or workdir.name)
    server.answers = Answers(explorer, name, step, classes, arguments)
    console.log('compiling')
    explorer.warm_up(server.answers.first_request())
  except BaseException:
    server.server_close()
    raise
  return server


def _has_screen():
  """Whether a browser would open a window: on Linux without a screen it may take the terminal."""
  others = not sys.platform.startswith('linux')
  return others or bool(os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY'))
