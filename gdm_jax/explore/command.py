"""The command line that makes a picture of the page, of the same latents and table."""

import re
import shlex
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from gdm_jax.explore.explorer import Explorer, Plan
from gdm_jax.explore.pictures import SKETCH
from gdm_jax.explore.request import Request
from gdm_jax.generation import composing
from gdm_jax.generation.composing import OWN, Pick

REPLACED = (
  r'(mode|dry_run|nodry_run|config\.(explore|complete|edit)\..*|config\.sampling\.'
  r'(seeds|latents|ranks|strategy|order|steps|solver|labels|guidance|folder|batch|format))'
)
"""Flags of --mode=explore that the command of a picture replaces, or does not take."""


class Command(NamedTuple):
  """text: the command line. note: where it writes, and which files are the user's."""

  text: str
  note: str


def command(explorer: Explorer, plan: Plan, request: Request, arguments: Sequence[str]) -> Command:
  """The command of a request; arguments: of the command that opened the page."""
  r, known = request, request.known
  strategy, files = explorer.system.strategies[r.strategy], {}
  for key in composing.pictures(r.picks):
    if key != OWN:
      files[key] = explorer.pictures.get(key)
  picks = [_named(pick, {key: picture.name for key, picture in files.items()}) for pick in r.picks]
  seed, latents = _latents(picks, known)

  # What is sampled, every setting that the page has.
  flags = [f'--config.sampling.steps={r.steps}', f'--config.sampling.solver={r.solver}']
  if len(explorer.system.strategies) > 1:
    flags.append(f'--config.sampling.strategy={r.strategy}')
  if r.order and strategy.order is None:
    flags.append(f'--config.sampling.order={_tuple(r.order)}')
  if explorer.config.model.classes:
    flags.append(f'--config.sampling.labels={r.label}')
    flags.append(f'--config.sampling.guidance={r.guidance!r}')
  last = seed + r.count - 1
  flags.append(f'--config.sampling.seeds={seed}' + f'-{last}' * (last > seed))
  if latents:
    flags.append(f'--config.sampling.latents={latents}')
  if r.ranks:
    values = (f'{rank}.{channel}={value!r}' for (rank, channel), value in r.ranks.items())
    flags.append(f'--config.sampling.ranks={",".join(values)}')
  mode, section, written = 'sample', 'sampling', f'{seed:06d}.png'
  if known:
    mode = section = 'complete'
    written = f'known_0.png{" and so on" * (r.count > 1)}; {SKETCH} is what "Save sketch" writes'
    flags.append(f'--config.complete.images={SKETCH}')
    flags.append(f'--config.complete.groups={_tuple(known.groups)}')
    flags.append(f'--config.complete.variants={known.variants}')

  # To a folder of its own, since a folder holds samples of one kind.
  content = [p.pixels.tobytes() for p in (*files.values(), *([known] if known else []))]
  folder = f'explored/{zlib.crc32(repr(flags).encode() + b"".join(content)):08x}'
  words = ['python', '-m', 'gdm_jax.main', *kept(arguments), f'--mode={mode}', *flags]
  words.append(f'--config.{section}.folder={folder}')
  own = ''.join(f'; {picture.name} is your file' for picture in files.values())
  return Command(shlex.join(words), f'It writes to {folder} in the workdir: {written}{own}.')


def _latents(picks, known):
  """The first seed, and `sampling.latents`; '' if every latent is of its own seed."""
  texts, sources = [str(pick) for pick in picks], composing.sources(picks)
  seeds = [source for source in sources if isinstance(source, int)]
  seed = known.seed if known and OWN in sources else (*seeds, 0)[0]
  if set(texts) == {OWN} or (set(texts) == {str(seed)} and not (known and known.variants > 1)):
    return seed, ''
  return seed, texts[0] if len(set(texts)) == 1 else ','.join(texts)


def _named(pick, names):
  """A pick with the files of its pictures."""

  def named(source):
    if not isinstance(source, str) or source == OWN:
      return source
    name = names.get(source, source)
    return name if '.' in name else f'./{name}'  # neither a seed nor OWN

  return Pick(named(pick.start), named(pick.end), pick.at)


def kept(arguments: Sequence[str]) -> list[str]:
  """The flags that say which model it is and how the machine is used."""
  words, rest = [], list(arguments)
  while rest:
    word = rest.pop(0)
    name, given, _ = word.lstrip('-').partition('=')
    if re.fullmatch(REPLACED, name):
      if not given and rest and not name.endswith('dry_run'):
        rest.pop(0)  # --mode explore
    else:
      words.append(word)
  return words


def _tuple(numbers):
  """Numbers as a flag's value; the comma makes one of them a tuple too."""
  return ','.join(map(str, numbers)) + ',' * (len(numbers) == 1)
