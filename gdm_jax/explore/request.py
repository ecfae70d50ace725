"""What the page asks for, read from JSON that anybody may have written."""

import base64
import binascii
import json
import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from gdm_jax.config import MAX_VARIANTS
from gdm_jax.generation.composing import Pick, Ranks, Source
from gdm_jax.runtime.errors import InputError

MAX_STEPS = 4096
MAX_GUIDANCE = 100.0
MAX_RANKS = 64  # that one request sets
STRONGEST = 10.0  # value of a coefficient; latents are N(0, 1)


class RequestError(InputError):
  """A request that cannot be answered: the message is for the page."""


class Known(NamedTuple):
  """A picture of which some groups are given; `composing.OWN` is seed + v for variant v."""

  pixels: UInt8[np.ndarray, 'h w c']
  groups: tuple[int, ...]
  variants: int
  seed: int


class Request(NamedTuple):
  """One picture of the page. label: -1 is none. ranks: (rank, channel) to value, -3 to 3 say."""

  tab: str
  draft: bool
  strategy: str
  order: tuple[int, ...]
  steps: int
  solver: str
  label: int
  guidance: float
  picks: tuple[Pick, ...]
  ranks: Ranks
  known: Known | None

  @property
  def count(self) -> int:
    """How many pictures it asks for."""
    return self.known.variants if self.known else 1


def parse(body: bytes, shape: tuple[int, ...]) -> Request:
  """The request of a body of JSON; shape: (height, width, channels) of the model's pictures.

  Whether the model can do it is checked where it is done. Raises RequestError.
  """
  tree = read_json(body)
  known = None if tree.get('known') is None else _known(tree['known'], shape)
  groups = _list(tree, 'groups', 'objects')
  return Request(
    tab=_text(tree, 'tab'),
    draft=_field(tree, 'draft', bool, 'true or false'),
    strategy=_text(tree, 'strategy'),
    order=_wholes(tree, 'order'),
    steps=_whole(tree, 'steps', 1, MAX_STEPS),
    solver=_text(tree, 'solver'),
    label=_whole(tree, 'label', -1, 2**31 - 1),
    guidance=_number(tree, 'guidance', 0, MAX_GUIDANCE),
    picks=tuple(_pick(group) for group in groups),
    ranks=_ranks(tree.get('ranks', {})),
    known=known,
  )


def read_json(body: bytes) -> dict:
  """The object of a body of JSON, without NaN or infinity. Raises RequestError."""

  def refuse(word):
    raise RequestError(f'{word} is no number of JSON')

  def finite(text):
    return float(text) if math.isfinite(float(text)) else refuse(text[:20])

  try:
    tree = json.loads(body.decode(), parse_constant=refuse, parse_float=finite)
  except RequestError:
    raise
  except (ValueError, RecursionError) as error:
    raise RequestError(f'the body is no JSON: {str(error)[:100]}') from None
  if not isinstance(tree, dict):
    raise RequestError(f'the body must be a JSON object, not {_show(tree)}')
  return tree


def _pick(tree) -> Pick:
  if not isinstance(tree, dict):
    raise RequestError(f'groups: {_show(tree)} must be an object with from, to and at')
  return Pick(_source(tree, 'from'), _source(tree, 'to'), _number(tree, 'at', 0, 1))


def _source(tree, key) -> Source:
  value = tree.get(key)
  if isinstance(value, str) and 0 < len(value) <= 64:
    return value
  if _is_whole(value) and 0 <= value < 2**32:
    return value
  raise RequestError(f'{key} = {_show(value)} must be a seed of 0 to 2**32 - 1, or a picture')


def _known(tree, shape) -> Known:
  if not isinstance(tree, dict):
    raise RequestError(f'known = {_show(tree)} must be an object')
  text, size = _field(tree, 'pixels', str, 'text'), math.prod(shape)
  try:
    pixels = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
  except (binascii.Error, ValueError):
    raise RequestError('known.pixels must be bytes in base64') from None
  if pixels.size != size:
    raise RequestError(f'known.pixels has {pixels.size} bytes: must be {size}, {tuple(shape)}')
  variants = _whole(tree, 'variants', 1, MAX_VARIANTS)
  seed = _whole(tree, 'seed', 0, 2**32 - variants)
  return Known(pixels.reshape(shape), _wholes(tree, 'groups'), variants, seed)


def _ranks(tree) -> Ranks:
  if not isinstance(tree, dict) or len(tree) > MAX_RANKS:
    raise RequestError(f'ranks must be an object of at most {MAX_RANKS} values')
  ranks = {}
  for key in tree:
    rank, _, channel = key.partition('.')
    numbers = (rank, channel or '0')
    if not all(n.isascii() and n.isdigit() and len(n) < 10 for n in numbers):
      raise RequestError(f'ranks: {_show(key)} must be RANK or RANK.CHANNEL, such as 12 or 12.0')
    ranks[int(rank), int(numbers[1])] = _number(tree, key, -STRONGEST, STRONGEST)
  return ranks


def _text(tree, key) -> str:
  value = _field(tree, key, str, 'text')
  if not (0 < len(value) <= 100 and value.isprintable()):
    raise RequestError(f'{key} = {_show(value)} must be 1 to 100 characters')
  return value


def _wholes(tree, key) -> tuple[int, ...]:
  values = _list(tree, key, 'whole numbers')
  if not all(_is_whole(value) and 0 <= value < 2**31 for value in values):
    raise RequestError(f'{key} = {_show(values)} must be whole numbers from 0 on')
  return tuple(values)


def _list(tree, key, what) -> list[Any]:
  return _field(tree, key, list, f'a list of {what}')


def _whole(tree, key, least, most) -> int:
  value = tree.get(key)
  if not (_is_whole(value) and least <= value <= most):
    raise RequestError(f'{key} = {_show(value)} must be a whole number, {least} to {most}')
  return value


def _number(tree, key, least, most) -> float:
  value = tree.get(key)
  number = isinstance(value, (int, float)) and not isinstance(value, bool)
  if not (number and least <= value <= most):
    raise RequestError(f'{key} = {_show(value)} must be a number, {least:g} to {most:g}')
  return float(value)


def _field(tree, key, kind, what):
  value = tree.get(key)
  if not isinstance(value, kind):
    raise RequestError(f'{key} = {_show(value)} must be {what}')
  return value


def _is_whole(value) -> bool:
  return isinstance(value, int) and not isinstance(value, bool)


def _show(value: Any) -> str:
  """A value of JSON, shortened, in one line."""
  text = 'nothing' if value is None else _dump(value)
  return text if len(text) <= 60 else f'{text[:57]}...'


def _dump(value):
  try:
    return json.dumps(value)
  except (ValueError, RecursionError):  # an integer of more digits than Python prints
    return type(value).__name__


def choose(key: str, value: str, valid: Iterable[str]) -> str:
  """The value, if it is valid. Raises RequestError."""
  if value not in (valid := list(valid)):
    raise RequestError(f'{key} = {_show(value)}: there are {", ".join(valid)}')
  return value
