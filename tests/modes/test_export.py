"""--mode=export: a folder that is complete, is checked, and gives the run's own samples."""

import json
import re
import shutil
import types

import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gdm_jax import build, main
from gdm_jax.evaluation import evaluator
from gdm_jax.models import naming
from gdm_jax.runtime import exported
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs
from tests.support.exports import config_and_parameters, export

NO_PROGRAM = '--config.export.program=False'


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory):
  return export(trained, tmp_path_factory.mktemp('export') / 'digits')


def test_the_parameters_have_edms_names_and_need_safetensors_alone(trained, folder):
  tensors = safetensors.numpy.load_file(folder / 'model.safetensors')
  _, _, params = config_and_parameters(trained)
  assert 'enc.8x8_block0.conv0.weight' in tensors
  loaded = naming.from_names('ddpmpp', tensors)
  runs.assert_same_bits(jax.tree.leaves(params), jax.tree.leaves(loaded))
  with safetensors.safe_open(folder / 'model.safetensors', 'np') as file:
    assert file.metadata() == {'network': 'ddpmpp'}


LOAD = """
import sys, numpy as np, gdm_jax
assert not any(name.startswith(('jax', 'flax', 'orbax')) for name in sys.modules)  # import is light
np.save(sys.argv[2], gdm_jax.load(sys.argv[1]).sample(range(5)))
"""


def test_samples_are_those_of_the_workdir_bit_for_bit(trained, tmp_path):
  npz = ('--config.sampling.format=npz', '--config.sampling.seeds=0-4')
  workdir = tmp_path / 'run'
  shutil.copytree(trained, workdir)
  assert main.main(['', *runs.arguments(workdir, '--mode=sample', *npz)]) == 0
  expected = np.load(workdir / 'samples' / 'samples.npz')['x']
  folder = export(workdir, tmp_path / 'model', NO_PROGRAM)
  shutil.rmtree(workdir)
  runs.python('-c', LOAD, folder, tmp_path / 'x.npy')
  np.testing.assert_array_equal(np.load(tmp_path / 'x.npy'), expected)
  assert main.main(['', f'--model={folder}', '--mode=sample', f'--workdir={workdir}', *npz]) == 0
  np.testing.assert_array_equal(np.load(workdir / 'samples' / 'samples.npz')['x'], expected)


def test_convolutions_of_the_cpu_are_no_part_of_a_program(trained, monkeypatch):
  from gdm_jax.modes import export as mode

  asked = []
  original = build.system
  monkeypatch.setattr(
    mode.build, 'system', lambda c: asked.append(c.machine.convolutions) or original(c)
  )
  monkeypatch.setattr(
    mode.program, 'export_sampler', lambda *a: b'program of ' + asked[-1].encode()
  )
  folder = export(trained, trained.parent / 'direct')
  assert (folder / 'sampler.stablehlo').read_bytes() == b'program of direct'


def tensor_bytes(file):
  content = file.read_bytes()
  return len(content) - 8 - int.from_bytes(content[:8], 'little')  # after the header


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_half_precision_is_half_the_size_and_loads_as_float32(trained, folder, dtype, tmp_path):
  half = export(trained, tmp_path / 'half', f'--config.export.dtype={dtype}')
  size, full = (tensor_bytes(f / 'model.safetensors') for f in (half, folder))
  assert 2 * size == full
  tensors = exported.open_model(str(half)).tensors()
  exact = exported.open_model(str(folder)).tensors()
  for name, value in tensors.items():
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, exact[name], rtol=2**-8, atol=1e-7)
  program = jax.export.deserialize(bytearray((half / 'sampler.stablehlo').read_bytes()))
  assert str(jax.tree.leaves(program.in_avals)[0].dtype) == dtype


def test_a_value_too_large_for_half_precision_is_named(tmp_path):
  with pytest.raises(ConfigError, match=r'a\.b has values that float16 cannot hold'):
    exported.write_tensors(tmp_path / 'x', {'a.b': np.float32([1e6])}, 'float16')


def test_the_card_says_what_the_model_is(folder):
  text = (folder / 'README.md').read_text()
  header = re.match(r'---\n(.*?)\n---\n', text, re.DOTALL)[1]
  header = yaml.safe_load(header)
  assert header['library_name'] == 'gdm_jax'
  assert header['pipeline_tag'] == 'unconditional-image-generation'
  assert all(isinstance(tag, str) for tag in header['tags'])
  assert 'license' not in header
  for part in ('| main | blocks 2, 2 | 4 | any |', '1,797', 'grid.png', 'None yet.', 'Licence'):
    assert part in text
  with Image.open(folder / 'grid.png') as image:
    assert image.size[0] < 200


def test_cards_are_read_by_the_hubs_own_parser(folder):
  hub = pytest.importorskip('huggingface_hub')
  for card in (folder / 'README.md', *exported.MODELS.glob('*/README.md')):
    data = hub.ModelCard.load(card).data
    assert data.library_name == 'gdm_jax'
    assert 'diffusion' in data.tags


def test_the_card_has_the_evaluation_of_these_parameters(trained, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(trained, workdir)
  same = evaluator.Checkpoint(config_and_parameters(trained)[-1], 8).fingerprint
  rows = [
    {'checkpoint': 8, 'parameters': parameters, 'features': 'pixels', 'images': images}
    for parameters, images in (('others', 30), (same, 32))
  ]
  evaluator.open_csv(workdir).add(*rows)
  text = (export(workdir, workdir / 'model', NO_PROGRAM) / 'README.md').read_text()
  assert '| pixels | 32 |' in text
  assert '| pixels | 30 |' not in text


def test_the_config_says_nothing_of_this_machine(trained, folder):
  tree = json.loads((folder / 'config.json').read_text())
  assert str(trained) not in (folder / 'config.json').read_text()
  assert tree['about']['step'] == 8
  assert tree['about']['contents']['count'] == 1797
  assert tree['export']['folder'] == 'export'


def test_an_export_chooses_no_place_on_this_machine(folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  tree = json.loads((copy / 'config.json').read_text())
  tree['machine'] |= {'compilation_cache': str(copy), 'data_dir': str(copy)}
  for section, place in {'sampling': '../..', 'edit': '..', 'complete': str(tmp_path)}.items():
    tree[section]['folder'] = place
  (copy / 'config.json').write_text(json.dumps(tree))
  exported.write_sums(copy)
  config = exported.open_model(str(copy)).config()
  assert (config.machine.compilation_cache, config.machine.data_dir) == ('auto', '')
  for section in ('sampling', 'edit', 'complete'):
    assert config[section].folder == section
  assert config.export.folder == 'export'  # a folder in the workdir is kept


def test_groups_of_a_file_travel_with_the_model(trained, tmp_path):
  workdir, file = tmp_path / 'run', tmp_path / 'labels.npz'
  shutil.copytree(trained, workdir)
  labels = np.arange(64).reshape(8, 8) % 3
  np.savez(file, labels=labels)
  tree = json.loads((workdir / 'config.json').read_text())
  tree['strategies']['main'] |= {'grouping': f'file:{file}', 'groups': []}
  (workdir / 'config.json').write_text(json.dumps(tree))
  folder = export(workdir, tmp_path / 'model', NO_PROGRAM)
  file.unlink()
  moved = exported.open_model(str(folder.rename(tmp_path / 'moved')))
  np.testing.assert_array_equal(build.system(moved.config()).process.grouping.labels, labels)
  assert str(tmp_path) not in (moved.folder / 'config.json').read_text()


# Damage: every byte of every file that is read, every missing file.


def damage_of(folder):
  with pytest.raises(ConfigError) as error:
    exported.open_model(str(folder))
  assert len(str(error.value).splitlines()) == 1
  return str(error.value)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_flipped_byte_is_found(folder, data):
  files = sorted(f for f in folder.iterdir() if f.name != exported.CARD)
  file = data.draw(st.sampled_from(files))
  content = file.read_bytes()
  position = data.draw(st.integers(0, len(content) - 1))
  flipped = content[position] ^ data.draw(st.integers(1, 255))
  try:
    file.write_bytes(content[:position] + bytes([flipped]) + content[position + 1 :])
    damage_of(folder)
  finally:
    file.write_bytes(content)
  exported.open_model(str(folder))


def test_every_byte_of_the_sums_counts(folder):
  file = folder / exported.SUMS
  content = file.read_bytes()
  try:
    for position in range(len(content)):
      for flip in (1, 32, 128):
        changed = bytes([content[position] ^ flip])
        file.write_bytes(content[:position] + changed + content[position + 1 :])
        damage_of(folder)
  finally:
    file.write_bytes(content)


def test_a_missing_file_is_named(folder, tmp_path):
  for name in ('model.safetensors', 'config.json', 'sampler.stablehlo', 'grid.png', 'SHA256SUMS'):
    copy = shutil.copytree(folder, tmp_path / name)
    (copy / name).unlink()
    assert name in damage_of(copy)


def test_the_card_is_its_owners(folder, tmp_path):
  copy = shutil.copytree(folder, tmp_path / 'copy')
  (copy / 'README.md').write_text('mine')
  exported.open_model(str(copy))


BAD = {
  'no model': (
    ['--model=nothing', '--mode=sample'],
    '--model=nothing: no such folder, and no model',
  ),
  'no export': (['--model={trained}', '--mode=sample'], 'has no SHA256SUMS, so it is no export'),
  'to train': (['--model={folder}'], 'is trained; --config.train.start='),
  'two models': (['--model={folder}', '--model={folder}'], 'give one of them'),
  'unknown key': (
    ['--model={folder}', '--mode=sample', '--config.sampling.stepz=3'],
    '--config.sampling.stepz=3: no such key; did you mean steps?',
  ),
  'another basis': (
    ['--model={folder}', '--mode=sample', '--config.basis.name=cosine'],
    'holds a model with another config: basis.name = cosine (there pixel)',
  ),
  'no hub': (['--model=hf:user/model', '--mode=sample'], 'needs huggingface_hub: pip install'),
  'no dtype': (
    ['--model={folder}', '--mode=export', '--config.export.dtype=int8'],
    "export.dtype = 'int8': there are float32, float16, bfloat16",
  ),
  'an address': (['--model=gs://bucket', '--mode=sample'], '--model = gs://bucket: files must be'),
  'something else there': (
    ['--model={folder}', '--mode=export', '--config.export.folder={trained}'],
    'holds something else; take another',
  ),
  'no program of adaptive': (
    ['--model={folder}', '--mode=export', '--config.sampling.solver=adaptive'],
    "sampling.solver = 'adaptive' is no part of a program",
  ),
}


@pytest.mark.parametrize('name', BAD)
def test_bad_input_is_one_line(name, trained, folder, tmp_path, capsys, monkeypatch):
  monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', None)
  arguments, wanted = BAD[name]
  arguments = [a.format(trained=trained, folder=folder) for a in arguments]
  assert main.main(['', *arguments, f'--workdir={tmp_path / "run"}']) == 2
  error = capsys.readouterr().err
  assert wanted in error
  assert len(error.strip().splitlines()) == 1
  assert not (tmp_path / 'run').exists()


def test_a_name_is_a_folder_of_the_package(folder, tmp_path, monkeypatch):
  monkeypatch.setattr(exported, 'MODELS', tmp_path)
  shutil.copytree(folder, tmp_path / 'small')
  assert exported.names() == ['small']
  assert main.parse(['', '--model=small', '--mode=sample']).workdir.name == 'small'
  with pytest.raises(ConfigError, match='there are: small'):
    exported.open_model('large')


def test_a_model_of_the_hub_is_downloaded(folder, monkeypatch):
  asked = []

  def snapshot_download(name, revision):
    asked.append((name, revision))
    return str(folder)

  hub = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(__import__('sys').modules, 'huggingface_hub', hub)
  assert exported.open_model('hf:user/model').folder == folder
  assert exported.open_model('hf:user/model@v2').folder == folder
  assert asked == [('user/model', None), ('user/model', 'v2')]
  assert exported.short_name('hf:user/model@v2') == 'model'


def test_without_flatbuffers_the_key_is_named(trained, tmp_path, monkeypatch, capsys):
  from gdm_jax.modes import export as mode

  monkeypatch.setattr(mode.importlib.util, 'find_spec', lambda name: None)
  assert main.main(['', *runs.arguments(trained, '--mode=export')]) == 2
  assert 'export.program = True needs flatbuffers' in capsys.readouterr().err


@pytest.mark.parametrize('stopped_in', ['write_tensors', 'write_sums'])
def test_an_export_stays_until_another_is_whole(stopped_in, folder, trained, tmp_path, monkeypatch):
  older = shutil.copytree(folder, tmp_path / 'model')
  before = {file.name: file.read_bytes() for file in older.iterdir()}
  arguments = ['', *runs.arguments(trained, '--mode=export', f'--config.export.folder={older}')]
  arguments += [NO_PROGRAM, '--config.export.grid=0']

  def stop(*_, **__):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(exported, stopped_in, stop)
    assert main.main(arguments) == 130
  assert {file.name: file.read_bytes() for file in older.iterdir()} == before
  (older / '.unfinished-x').mkdir()  # by a program that was killed
  assert main.main(arguments) == 0
  left = {'model.safetensors', 'config.json', 'README.md', 'SHA256SUMS'}
  assert {file.name for file in older.iterdir()} == left
  assert exported.open_model(str(older)).tensors().keys()


def test_an_export_can_take_its_own_place(folder, tmp_path):
  """Also if it holds files that its config names."""
  own = shutil.copytree(folder, tmp_path / 'own')
  labels = np.arange(64).reshape(8, 8) % 4
  np.savez(own / 'labels_0.npz', labels=labels)
  tree = json.loads((own / 'config.json').read_text())
  tree['strategies']['main'] |= {'grouping': 'file:labels_0.npz', 'groups': []}
  (own / 'config.json').write_text(json.dumps(tree))
  exported.write_sums(own)
  arguments = [f'--model={own}', '--mode=export', f'--config.export.folder={own}', NO_PROGRAM]
  assert main.main(['', *arguments, f'--workdir={tmp_path}', '--config.export.grid=0']) == 0
  system = build.system(exported.open_model(str(own)).config())
  np.testing.assert_array_equal(system.process.grouping.labels, labels)
