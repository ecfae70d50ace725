"""The model card of an export: what it is, how it is used, and how it came about."""

import pathlib

import jax
from ml_collections import ConfigDict

from gdm_jax import figures
from gdm_jax.build import System
from gdm_jax.evaluation import evaluator
from gdm_jax.runtime import exported

MEASURED = ('metric', 'distance', 'features', 'images', 'order', 'solver', 'steps', 'guidance')
"""The columns of evaluation.csv that a card shows."""

LISTED = 20  # classes and orders by name; of more only how many


CARD = """---
library_name: gdm_jax
{tags}
---

# {name}

A [groupwise diffusion model](https://arxiv.org/abs/2310.01400) of {data}. Examples are {shape}, of
values in [-1, 1]; they are generated group by group.

{sheet}
```python
import gdm_jax

model = gdm_jax.load('{folder}')  # this folder, or 'hf:USER/MODEL'
x = model.sample(range(16))
```

## Data

{contents}

## Groups and orders

Basis {basis}, path {path}.

{groups}

## Training

{training}

## Sampling

By default {solver}, {steps} steps, order {order}.

## Evaluation

{evaluation}

## Licence

Not stated. Whoever publishes this model adds `license:` to the lines at the top.
"""


def text(
  config: ConfigDict,
  system: System,
  params: dict,
  about: dict,
  workdir: pathlib.Path,
  folder: pathlib.Path,
) -> str:
  """README.md, with the YAML that huggingface_hub reads; its licence is for the owner to add.

  about: of `config.json`. workdir: where evaluation.csv may be. folder: of the export.
  """
  holder = workdir if folder.name == 'export' else folder
  return CARD.format(
    tags=_tags(config),
    name=_cell(holder.absolute().name),
    data=_cell(config.data.name),
    shape=tuple(config.data.shape),
    sheet=f'![Samples]({exported.SHEET})\n' * (config.export.grid > 0),
    folder=folder.name,
    contents=_table(_contents(config, about['contents'])),
    basis=config.basis.name,
    path=config.path,
    groups=_groups(config, system),
    training=_table(_training(config, params, about)),
    solver=config.sampling.solver,
    steps='-'.join(map(str, config.sampling.steps)),
    order=_order(config.sampling.order),
    evaluation=_measured(workdir, params, about['step']) or 'None yet.',
  )


def _contents(config, contents):
  rows = {'data': f'{config.data.name}, {config.data.split}'}
  if contents:
    rows['examples'] = f'{contents["count"]:,}'
    rows['classes'] = _classes(config, contents['classes'])
    rows['fingerprint'] = contents['fingerprint']
  return rows


def _training(config, params, about):
  c, count = config.train, sum(x.size for x in jax.tree.leaves(params))
  return {
    'network': f'{config.model.name}, {count:,} parameters, stored as {config.export.dtype}',
    'images': f'{about["trained_images"]:,}: {about["step"]:,} steps of {c.batch}',
    'loss': f'{c.weighting}, {c.times} times',
    'Adam': f'learning rate {c.learning_rate:g}',
    'EMA': f'half-life {c.ema_halflife:,} images; the parameters are the average',
    'began from': c.start or 'random parameters',
    'made with': ', '.join(f'{name} {version}' for name, version in about['versions'].items()),
  }


def _tags(config):
  tags = ['gdm', 'groupwise-diffusion', 'diffusion', 'jax', config.model.name.replace('_', '-')]
  image = figures.is_image(config.data.shape)
  task = ['pipeline_tag: unconditional-image-generation'] * image
  return '\n'.join([*task, 'tags:', *(f'- {tag}' for tag in tags)])


def _classes(config, names):
  if not names:
    return 'none'
  listed = ', '.join(names) if len(names) <= LISTED else f'{len(names)}'
  return f'{listed} ({"" if config.model.classes else "not "}given to the model)'


def _groups(config, system):
  head = '| strategy | grouping | groups | order |\n|---|---|---|---|'
  lines = [
    f'| {_cell(name)} | {_cell(s.grouping)} {_order(s.groups) if s.groups else ""} '
    f'| {system.strategies[name].num_groups} | {_order(s.order)} |'
    for name, s in config.strategies.items()
  ]
  return '\n'.join([head, *lines])


def _order(order):
  if not order:
    return 'any'
  return ', '.join(map(str, order)) if len(order) <= LISTED else f'a fixed one of {len(order)}'


def _measured(workdir, params, step):
  """The rows of evaluation.csv of these parameters as a table; '' if there are none."""
  if not (workdir / 'evaluation.csv').exists():
    return ''
  model = evaluator.Checkpoint(params, step).fingerprint
  rows = [row for row in evaluator.open_csv(workdir).rows if row['parameters'] == model]
  head = [f'| {" | ".join(MEASURED)} |', f'|{"---|" * len(MEASURED)}']
  body = [f'| {" | ".join(_cell(row[name]) for name in MEASURED)} |' for row in rows]
  return '\n'.join(head + body) if rows else ''


def _table(rows):
  return '\n'.join(['| | |', '|---|---|', *(f'| {k} | {_cell(v)} |' for k, v in rows.items())])


def _cell(value):
  """Text that stays inside a cell of a table, and inside one line."""
  return ' '.join(str(value).replace('|', '\\|').split())
