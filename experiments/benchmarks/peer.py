"""Another program that trains and samples a model like this one, to compare speeds."""

import pathlib
import re
import subprocess
from collections.abc import Sequence

from gdm_jax.runtime.errors import ConfigError

LINES = {
  'images_per_second_on_device': r'^train: ([\d.e+]+) images/s',
  'evaluations_per_second': r'^sample: ([\d.e+]+) network evaluations',
}


def run(script: str, python: str, flags: Sequence[str]) -> dict[str, float]:
  """The rates that the script prints. Raises ConfigError if it fails or prints none."""
  if not pathlib.Path(script).is_file():
    raise ConfigError(f'--peer={script}: no such file')
  try:
    done = subprocess.run([python, script, *flags], capture_output=True, text=True)
  except OSError as error:
    raise ConfigError(f'--peer_python={python}: {error.strerror}') from None
  if done.returncode:
    if missing := re.search(r"No module named '(\w+)'", done.stderr):
      raise ConfigError(f'--peer_python={python} has no {missing[1]}, which --peer={script} needs')
    last = (done.stderr.strip() or done.stdout.strip() or 'it printed nothing').splitlines()[-1]
    raise ConfigError(f'--peer={script} ended with code {done.returncode}: {last}')
  matches = {name: re.search(line, done.stdout, re.MULTILINE) for name, line in LINES.items()}
  for name, match in matches.items():
    if match is None:
      raise ConfigError(f'--peer={script} printed no line like {LINES[name]!r}')
  return {name: float(match[1]) for name, match in matches.items()}
