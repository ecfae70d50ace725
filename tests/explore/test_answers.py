"""What --mode=explore shows is what the model makes, and what its commands make."""

import base64
import io
import json
import re
import shlex
import threading

import numpy as np
import pytest
from PIL import Image

from gdm_jax import build, main, sampling
from gdm_jax.data.units import to_uint8
from gdm_jax.explore.command import kept
from gdm_jax.explore.request import parse
from gdm_jax.generation import editing
from gdm_jax.generation.generator import Generator
from gdm_jax.runtime import sharding
from gdm_jax.training.workdir import load_ema
from tests.explore.client import SHAPE, last_pictures, request


def generated(served, seeds, label, guidance=1.0, known=None, groups=(), **settings):
  """The data of `Generator`, which the page has nothing to do with."""
  explorer = served.server.answers._explorer
  config = explorer.config.copy_and_resolve_references()
  config.sampling.update(settings)
  mesh = sharding.mesh()
  params, _ = load_ema(config, served.workdir, explorer.system, mesh)
  generator = Generator(explorer.system, SHAPE, build.solver(config), mesh, guidance)
  table = build.sampling_table(config, explorer.system, groups)
  labels = np.full(len(seeds), label)
  return generator.sample(params, table, np.array(seeds), labels=labels, known=known, groups=groups)


@pytest.mark.parametrize(
  ('solver', 'steps', 'order', 'label', 'guidance'),
  [
    ('euler', 40, (), -1, 1.0),
    ('adams_bashforth2', 13, (3, 1, 0, 2), 7, 1.0),
    ('midpoint', 4, (1, 0, 2, 3), 2, 2.5),
  ],
)
def test_a_picture_of_a_seed_is_the_generators(labelled, solver, steps, order, label, guidance):
  settings = {'solver': solver, 'steps': (steps,), 'order': order}
  expected = generated(labelled, [5], label, guidance, **settings)
  wanted = request(
    solver=solver, steps=steps, order=list(order), label=label, guidance=guidance, seed=5
  )
  explorer = labelled.server.answers._explorer
  parsed = parse(json.dumps(wanted).encode(), SHAPE)
  (*_, frame) = explorer.frames(explorer.plan(parsed), parsed)
  # The page walks in other chunks, which XLA may round otherwise.
  np.testing.assert_allclose(frame.x, expected, rtol=0, atol=2e-6)
  lines = labelled.client.generate(**wanted)
  np.testing.assert_array_equal(last_pictures(lines), to_uint8(expected))
  rows = [line['row'] for line in lines if line['kind'] == 'frame']
  assert (rows[0], rows[-1]) == (0, steps)
  assert rows == sorted(rows)


def test_sliders_move_only_their_groups(bands, labelled):
  """At either end a group has exactly the latent of that seed, up to the basis's rounding."""
  for served, tolerance in ((labelled, 0), (bands, 2e-6)):
    explorer = served.server.answers._explorer
    basis = explorer.system.process.basis
    masks = list(editing.masks(explorer.system, 'main').values())
    a, b = (basis.analyze(sampling.latents(np.array([seed]), SHAPE)) for seed in (5, 6))

    def latent(*places, explorer=explorer):
      wanted = request()
      for group, at in zip(wanted['groups'], places, strict=True):
        group['at'] = at
      parsed = parse(json.dumps(wanted).encode(), SHAPE)
      return explorer.system.process.basis.analyze(explorer.latents(explorer.plan(parsed), parsed))

    mixed = latent(0, 1, 0, 1)
    expected = np.where(masks[1] | masks[3], b, a)
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=tolerance)
    between = latent(0, 0.5, 0, 0)
    np.testing.assert_allclose(np.where(masks[1], a, between), a, rtol=0, atol=tolerance)
    assert not np.allclose(np.where(masks[1], between, 0), np.where(masks[1], a, 0), atol=0.1)


def test_ranks_are_set(bands):
  explorer = bands.server.answers._explorer
  lines = bands.client.generate(ranks={'0': 2.5, '30.0': -3})
  assert lines[-1]['ranks']['0'] == pytest.approx(2.5, abs=1e-4)
  assert [len(ranks) for ranks in explorer.lowest_ranks('main')] == [3, 7, 8, 8]
  parsed = parse(json.dumps(request(ranks={'30': -3})).encode(), SHAPE)
  c = explorer.system.process.basis.analyze(explorer.latents(explorer.plan(parsed), parsed))
  ranks = np.asarray(explorer.system.process.basis.ranks)
  assert np.asarray(c)[0, ..., 0][ranks == 30] == pytest.approx(-3, abs=1e-5)


def dropped(served, array, name='mine.png'):
  file = io.BytesIO()
  Image.fromarray(array).save(file, 'png')
  answer = served.client.ask('POST', '/picture', file.getvalue(), X_Name=name)
  assert answer.status == 200, answer.body
  return answer.json, file.getvalue()


def test_a_picture_comes_back_and_can_be_mixed(labelled):
  array = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
  told, _ = dropped(labelled, array)
  assert told['changes'] == ''
  groups = [{'from': told['id'], 'to': 6, 'at': 0} for _ in range(4)]
  settings = {'solver': 'reversible_heun', 'groups': groups}
  lines = labelled.client.generate(**settings)
  assert lines[-1]['returns'] < 0.05
  np.testing.assert_array_equal(last_pictures(lines)[0, ..., 0], array)

  groups[2]['at'] = 0.5
  lines = labelled.client.generate(**settings)
  assert 'returns' not in lines[-1]
  assert (last_pictures(lines)[0, ..., 0] != array).any()


def test_what_is_known_stays(labelled):
  pixels = np.random.default_rng(1).integers(0, 256, SHAPE, np.uint8)
  text = base64.b64encode(pixels.tobytes()).decode()
  known = {'pixels': text, 'groups': [3, 0], 'variants': 3, 'seed': 9}
  own = [{'from': 'seed', 'to': 'seed', 'at': 0}] * 4
  lines = labelled.client.generate(order=[3, 0, 2, 1], known=known, steps=12, groups=own)
  found = last_pictures(lines)
  images = np.repeat(pixels[None] / np.float32(127.5) - 1, 3, axis=0)
  settings = {'order': (3, 0, 2, 1), 'steps': (12,), 'known': images, 'groups': (3, 0)}
  expected = generated(labelled, [9, 10, 11], -1, **settings)
  np.testing.assert_array_equal(found, to_uint8(expected))
  assert (found[:, :4, :4] == pixels[:4, :4]).all()
  assert (found[:, 4:, 4:] == pixels[4:, 4:]).all()
  assert lines[-1]['bars'][0] == lines[-1]['bars'][3] == [0, 0]


def run_command(command, folder_of):
  """Runs a command of the page in this process; returns the pictures that it wrote, by name."""
  words = shlex.split(command)
  assert words[:3] == ['python', '-m', 'gdm_jax.main']
  assert main.main(['', *words[3:]]) == 0
  folder = folder_of / re.search(r'folder=(\S+)', command)[1]
  return {file.name: np.asarray(Image.open(file)) for file in folder.glob('*.png')}


def test_commands_make_the_same_pictures(labelled, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  lines = labelled.client.generate(order=[2, 0, 3, 1], label=4, guidance=1.5, steps=9)
  found = run_command(lines[-1]['command']['text'], labelled.workdir)
  np.testing.assert_array_equal(found['000005.png'], last_pictures(lines)[0, ..., 0])

  # A sketch whose unknown groups are of the seeds 4 and 5, one kept between two seeds.
  array = np.random.default_rng(2).integers(0, 256, (8, 8), np.uint8)
  told, content = dropped(labelled, array, 'mine.png')
  for name in (told['name'], 'known.png'):
    (tmp_path / name).write_bytes(content)
  own, between = {'from': 'seed', 'to': 'seed', 'at': 0}, {'from': 7, 'to': 8, 'at': 0.37}
  known = {'pixels': told['pixels'], 'groups': [1], 'variants': 2, 'seed': 4}
  for groups in ([own] * 4, [own, own, between, own]):
    lines = labelled.client.generate(order=[1, 0, 2, 3], known=known, label=4, groups=groups)
    found = run_command(lines[-1]['command']['text'], labelled.workdir)
    for v in range(2):
      np.testing.assert_array_equal(found[f'known_{v}.png'], last_pictures(lines)[v, ..., 0])
  assert (found['known_0.png'] != found['known_1.png']).any()

  # Pictures that were dropped, seeds, what lies between them, and no label.
  picture = {'from': told['id'], 'to': 0, 'at': 0}
  mixed = [picture, between, {**picture, 'at': 0.5}, {'from': 9, 'to': 9, 'at': 0.2}]
  for groups, solver, label, guidance in (
    ([picture] * 4, 'reversible_heun', 1, 2.5),
    (mixed, 'reversible_heun', -1, 1),
    (mixed, 'heun', 3, 1),
    ([{**between, 'at': 1}] * 4, 'euler', -1, 1),
  ):
    settings = {'groups': groups, 'solver': solver, 'label': label, 'guidance': guidance}
    lines = labelled.client.generate(steps=4, **settings)
    found = run_command(lines[-1]['command']['text'], labelled.workdir)
    (made,) = (image for name, image in found.items() if name != 'grid.png')
    np.testing.assert_array_equal(made, last_pictures(lines)[0, ..., 0])


def test_commands_of_bands_make_the_same_pictures(bands, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  groups = [{'from': 5, 'to': 6, 'at': at} for at in (0, 1, 0.25, 0)]
  for ranks in ({'0': 2.5, '30.0': -0.05}, {}):
    lines = bands.client.generate(groups=groups, ranks=ranks, steps=4)
    found = run_command(lines[-1]['command']['text'], bands.workdir)
    np.testing.assert_array_equal(found['000005.png'], last_pictures(lines)[0, ..., 0])


def test_pictures_of_one_name_are_told_apart(labelled):
  names = [dropped(labelled, np.full((8, 8), i, np.uint8), 'same.png')[0]['name'] for i in range(2)]
  assert names == ['same.png', 'same-2.png']
  assert dropped(labelled, np.full((8, 8), 9, np.uint8), 'known.png')[0]['name'] == 'known-2.png'


def test_the_flags_of_the_model_are_kept():
  arguments = ['--config', 'a.py', '--mode', 'explore', '--workdir=w', '--config.sampling.steps=9']
  arguments += ['--config.sampling.cuts=0.5', '--config.explore.port', '0', '--nodistributed']
  arguments += ['--config.sampling.labels', '-1', '--nodry_run']
  expected = ['--config', 'a.py', '--workdir=w', '--config.sampling.cuts=0.5', '--nodistributed']
  assert kept(arguments) == expected


def test_only_the_newest_request_of_a_tab_is_answered(labelled):
  client, turns = labelled.client, labelled.server.answers._turns
  with turns.take('somebody else'):
    older = client.open('POST', '/generate', json.dumps(request(tab='one')).encode())
    assert json.loads(older.readline())['kind'] == 'accepted'
    while 'one' not in turns._newest:
      pass
    other = client.open('POST', '/generate', json.dumps(request(tab='two')).encode())
    newer = client.open('POST', '/generate', json.dumps(request(tab='one', seed=7)).encode())
    assert json.loads(newer.readline())['kind'] == 'accepted'
    waits = turns._newest['one']
    for _ in range(1000):
      if turns._newest['one'] is not waits:
        break
      threading.Event().wait(0.001)
  last = [json.loads(r.read().splitlines()[-1])['kind'] for r in (older, other, newer)]
  assert last[1:] == ['done', 'done']
  assert last[0] == 'dropped'


def test_a_request_is_dropped_between_two_steps(labelled):
  answers = labelled.server.answers
  lines = answers.generate(json.dumps(request(tab='mid', steps=32)).encode())
  while next(lines)['kind'] != 'frame':
    pass
  answers._turns._newest['mid'] = object()  # a newer one has come
  rest = list(lines)
  assert rest[-1]['kind'] == 'dropped'
  assert len(rest) < 4


def test_a_saved_page_needs_nothing_else(labelled):
  wanted = request(label=3, steps=8)
  wanted['groups'][1]['at'] = 0.3
  wanted['groups'][0]['to'] = 6
  lines = labelled.client.generate('/save', **wanted)
  assert lines[-1]['kind'] == 'page', lines[-1]
  page = lines[-1]['html']
  assert not re.search(r'https?://', page)
  assert "default-src 'none'" in page
  data = json.loads(re.search(r'const data = (.*);\n', page)[1])
  assert [len(slider['pictures']) for slider in data['sliders']] == [9] * 4

  def pixels(url):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(',')[1]))))

  def shown(**changes):
    return last_pictures(labelled.client.generate(**{**wanted, **changes}))[0, ..., 0]

  np.testing.assert_array_equal(pixels(data['picture']), shown())
  groups = [{**group} for group in wanted['groups']]
  groups[0]['at'] = 1
  np.testing.assert_array_equal(pixels(data['sliders'][0]['pictures'][8]), shown(groups=groups))
