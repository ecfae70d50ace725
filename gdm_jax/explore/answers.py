"""What the server answers: the model, pictures step by step, and a page that can be mailed."""

import base64
import io
import json
import math
import time
from collections.abc import Iterator, Sequence
from importlib import resources

import numpy as np

from gdm_jax import build, figures
from gdm_jax.config import solver_names
from gdm_jax.data.units import to_uint8
from gdm_jax.explore.command import command
from gdm_jax.explore.explorer import Explorer
from gdm_jax.explore.request import Request, RequestError, parse
from gdm_jax.explore.turns import Turns
from gdm_jax.generation import editing
from gdm_jax.generation.composing import Pick

PLACES = 9  # of a slider in a saved page
MOST_PICTURES = 400  # in a saved page
WAIT_SECONDS = 20.0  # at the end, for a step that is computed
DATA = '/*DATA*/null'


class Answers:
  """Answers to the page of one model."""

  def __init__(
    self,
    explorer: Explorer,
    name: str,
    step: int,
    classes: Sequence[str],
    arguments: Sequence[str],
  ):
    """name: of the model. classes: their names. arguments: of the command that serves the page."""
    self._explorer, self._turns = explorer, Turns()
    self._name, self._step, self._classes, self._arguments = name, step, classes, arguments
    self.upload_mib = explorer.config.explore.upload_mib
    self.request_bytes = 100_000 + 2 * math.prod(explorer.config.data.shape)

  def model(self) -> dict:
    """What the page must know before it asks for pictures."""
    config, system = self._explorer.config, self._explorer.system
    c, process = config.sampling, system.process
    strategy, order = build.sampling_order(config, system.strategies)
    label = int(build.sampling_labels(config, np.zeros(1, int))[0])
    discrete = config.train.times == 'discrete'
    return {
      'name': self._name,
      'step': self._step,
      'shape': list(config.data.shape),
      'basis': config.basis.name,
      'classes': list(self._classes) or [str(i) for i in range(config.model.classes)],
      'guided': bool(config.model.classes and config.train.label_dropout),
      'discrete': discrete,
      'solvers': solver_names(config),
      'picture_solver': 'euler' if discrete else config.edit.solver,
      'draft': {'steps': config.explore.draft_steps, 'solver': config.explore.draft_solver},
      'variants': config.explore.variants,
      'upload_mib': self.upload_mib,
      'strategies': {name: self._strategy(name) for name in system.strategies},
      'start': {
        'strategy': strategy,
        'order': list(order),
        'steps': sum(c.steps),
        'solver': c.solver,
        'label': label,
        'guidance': float(c.guidance[0]),
      },
      'by_channel': process.grouping.by_channel,
    }

  def _strategy(self, name):
    """A strategy: its groups by name, where they lie, the one order if there is one, and how few
    steps walk through its intervals."""
    system = self._explorer.system
    strategy, grouping = system.strategies[name], system.process.grouping
    labels = None
    if system.process.basis.is_pixel and not grouping.by_channel:
      labels = np.asarray(strategy.indices)[np.asarray(grouping.labels)].ravel().tolist()
    return {
      'groups': list(editing.masks(system, name)),
      'least': strategy.fewest_steps,
      'order': None if strategy.order is None else list(strategy.order),
      'labels': labels,
      'ranks': self._explorer.lowest_ranks(name),
    }

  def first_request(self) -> Request:
    """The draft with which the page begins."""
    model = self.model()
    start, draft = model['start'], model['draft']
    count, least = len(start['order']), model['strategies'][start['strategy']]['least']
    steps = start['steps'] if model['discrete'] else max(draft['steps'], least)
    return Request(
      tab='start',
      draft=True,
      strategy=start['strategy'],
      order=tuple(start['order']),
      steps=steps,
      solver=start['solver'] if model['discrete'] else draft['solver'],
      label=start['label'],
      guidance=start['guidance'],
      picks=(Pick(0, 1, 0.0),) * count,
      ranks={},
      known=None,
    )

  def picture(self, name: str, content: bytes) -> dict:
    """Takes a picture that was dropped. Raises RequestError."""
    pictures = self._explorer.pictures
    key = pictures.add(name, content)
    picture = pictures.get(key)
    pixels = base64.b64encode(picture.pixels.tobytes()).decode()
    return {'id': key, 'name': picture.name, 'changes': picture.changes, 'pixels': pixels}

  def generate(self, body: bytes) -> Iterator[dict]:
    """Frames of a request, and then what else there is to say. Raises RequestError and ConfigError.

    One that a newer request of the same tab overtakes ends with 'dropped'.
    """
    explorer, began = self._explorer, time.monotonic()
    request = parse(body, explorer.config.data.shape)
    plan = explorer.plan(request)
    yield {'kind': 'accepted', 'steps': len(plan.table) - 1}
    with self._turns.take(request.tab) as still:
      if not still():
        yield {'kind': 'dropped'}
        return
      if explorer.is_new(plan, request.count):
        yield {'kind': 'note', 'text': 'Compiling a program, which happens once.'}
      for frame in explorer.frames(plan, request):
        if len(frame.x):
          pictures = [_base64(x) for x in to_uint8(frame.x)]
          yield {'kind': 'frame', 'row': frame.row, 'pictures': pictures}
        if not frame.last and not still():
          yield {'kind': 'dropped'}
          return
      answer = explorer.result(plan, request, frame.x)
    made_by = command(explorer, plan, request, self._arguments)
    seconds = time.monotonic() - began
    yield {'kind': 'done', **answer, 'seconds': seconds, 'command': made_by._asdict()}

  def save(self, body: bytes) -> Iterator[dict]:
    """A page with pictures along each slider by itself, after lines that tell how far it is."""
    explorer = self._explorer
    request = parse(body, explorer.config.data.shape)
    if request.count > 1:
      raise RequestError('known.variants: a page is saved of one picture and its sliders')
    if (count := PLACES * len(request.picks)) > MOST_PICTURES:
      raise RequestError(
        f'{len(request.picks)} sliders are {count} pictures: at most {MOST_PICTURES} are saved'
      )
    plan = explorer.plan(request)
    places = np.linspace(0, 1, PLACES)
    wanted = [
      request._replace(
        picks=tuple(p._replace(at=float(at)) if i == g else p for i, p in enumerate(request.picks))
      )
      for g in range(len(request.picks))
      for at in places
    ]
    yield {'kind': 'note', 'text': f'Making {count + 1} pictures.'}
    # Sliders that move meanwhile have their turn between two lots.
    found, lot = [], explorer.variants
    for first in range(0, count + 1, lot):
      with self._turns.take(f'save {request.tab}') as still:
        explorer.is_new(plan, lot)
        some = explorer.some(plan, [request, *wanted][first : first + lot], still)
      if some is None:
        yield {'kind': 'dropped'}
        return
      found += [_png(x) for x in some]
      yield {'kind': 'progress', 'done': len(found), 'of': count + 1}
    made_by = command(explorer, plan, request, self._arguments)
    yield {'kind': 'page', 'html': self._page(request, found, made_by)}

  def _page(self, request, pictures, made_by):
    names = list(self._strategy(request.strategy)['groups'])
    sliders = [
      {
        'name': name,
        'from': self._source_name(pick.start),
        'to': self._source_name(pick.end),
        'at': pick.at,
        'pictures': pictures[1 + g * PLACES : 1 + (g + 1) * PLACES],
      }
      for g, (name, pick) in enumerate(zip(names, request.picks, strict=True))
    ]
    data = {
      'title': f'{self._name}, step {self._step:,}',
      'picture': pictures[0],
      'shape': list(self._explorer.config.data.shape),
      'sliders': sliders,
      'settings': f'{request.steps} steps of {request.solver}, order '
      + ', '.join(names[g] for g in request.order or range(len(names))),
      'command': made_by.text,
    }
    template = resources.files('gdm_jax.explore').joinpath('saved.html').read_text()
    # Within a script no text may end it.
    return template.replace(DATA, json.dumps(data).replace('<', '\\u003c'))

  def _source_name(self, source):
    return f'seed {source}' if isinstance(source, int) else self._explorer.pictures.get(source).name

  def stop(self):
    """Ends what is computed, for the end of the program."""
    self._turns.stop(WAIT_SECONDS)


def _base64(pixels):
  return base64.b64encode(pixels.tobytes()).decode()


def _png(pixels):
  file = io.BytesIO()
  figures.to_pil(pixels).save(file, 'png')
  return f'data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}'
