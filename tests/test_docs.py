"""README and docs: commands run (shrunk) or parse, Python blocks run, links and pictures exist."""

import contextlib
import importlib
import inspect
import os
import re
import shlex

import numpy as np
import pytest
from PIL import Image

from gdm_jax import main
from tests.support import runs

PAGES = {
  str(file.relative_to(runs.ROOT)): file.read_text()
  for file in (
    runs.ROOT / 'README.md',
    *sorted((runs.ROOT / 'docs').glob('*.md')),
    *sorted((runs.ROOT / 'experiments').glob('**/README.md')),
  )
}

ONLY_PARSED = {
  'configs/cifar10': 'needs CIFAR-10',
  'configs/fashion_groupings': 'is fashion in other strategies, which tests/test_configs.py builds',
  'configs/digits_overlap': 'is digits in other strategies, which tests/test_configs.py builds',
  'configs/digit_pairs': 'is digits in other strategies, which tests/test_configs.py builds',
  'configs/celebahq256': 'needs pictures of faces',
  '--coordinator': 'needs several processes, which tests/runtime/test_processes.py starts',
  '--model=fashion': 'is of full size; tests/test_pretrained.py samples it',
  'runs/fashion_whole': 'is fashion_frequency in one group',
  '--mode=explore': 'serves until Ctrl-C, as tests/explore does',
  'inception.npz': "needs Inception's published weights",
  'lite0.npz': "needs EfficientNet's published weights",
}
"""Commands of gdm_jax.main that are only parsed, by what they contain, and why. Those of
experiments are too: tests/experiments run them."""

NOT_OURS = ('python3.11 -m venv', 'pip install', 'pip download', 'tfds build', 'python -m pytest')
SHRUNK = (
  *runs.TINY,
  *(f'--config.{key}' for key in ('train.duration=32', 'checkpoint.every=32', 'log.every=16')),
  *('--config.sampling.seeds=0-3', '--config.complete.variants=1', '--config.edit.variants=1'),
  '--config.sampling.steps=16',
  *('--config.likelihood.num=2', '--config.evaluation.seeds=0-23'),
  *('--config.evaluation.features=pixels', '--config.data.augment=0'),
)


def blocks(text: str, language: str) -> list[str]:
  return re.findall(rf'^ *```{language}\n(.*?)^ *```', text, re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
  """The commands of the shell blocks and of code within lines, one each."""
  shell = '\n'.join(blocks(text, 'bash')).replace('\\\n', ' ')
  shell = re.sub(r'for i in .*; do (.*?) & done; wait', r'\1', shell, flags=re.DOTALL)
  lines = [part.strip() for line in shell.splitlines() for part in line.split('&&')]
  prose = re.sub(r'```.*?```', '', text, flags=re.DOTALL)
  lines += re.findall(r'`(python -m [^`]*)`', prose)
  return [re.sub(r'^\.venv/bin/', '', line) for line in lines if line]


ALL = [(page, command) for page, text in PAGES.items() for command in commands(text)]
OF_MAIN = [pair for pair in ALL if pair[1].startswith('python -m gdm_jax.main')]
OTHERS = [pair for pair in ALL if pair not in OF_MAIN]


def reason_to_only_parse(page: str, command: str) -> str:
  if page != 'README.md' and re.fullmatch(r'python -m gdm_jax\.main --config=\S+', command):
    return 'trains a config as it is; tests/test_configs.py builds it, later commands train it'
  return next((reason for part, reason in ONLY_PARSED.items() if part in command), '')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  """A folder with what the commands name: configs, pictures and arrays."""
  folder = tmp_path_factory.mktemp('docs')
  for name in ('configs', 'experiments'):
    (folder / name).symlink_to(runs.ROOT / name)
  rng = np.random.default_rng(0)
  (folder / 'pictures').mkdir()
  for file in ('a.jpg', 'b.jpg', *(f'pictures/{i}.png' for i in range(20))):
    Image.fromarray(rng.integers(0, 256, (20, 26, 3), np.uint8)).save(folder / file)
  images = rng.integers(0, 256, (20, 28, 28, 1), np.uint8)
  np.savez(folder / 'mine.npz', x=images)
  (folder / 'MNIST').mkdir()
  for name, array in {'images-idx3': images[..., 0], 'labels-idx1': np.arange(20) % 10}.items():
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, '>u4').tobytes()
    (folder / 'MNIST' / f'train-{name}-ubyte').write_bytes(head + array.astype(np.uint8).tobytes())
  with contextlib.chdir(folder):
    yield folder


def test_the_commands_run_in_the_order_of_the_pages(place):
  """Each page after the README: a config is trained when a command first needs its workdir."""
  ran = set()
  for page, command in OF_MAIN:
    words = tuple(shlex.split(command))
    if reason_to_only_parse(page, command) or words in ran:  # pages repeat each other's commands
      continue
    argv = ['', *words[3:], *SHRUNK]
    if 'autoregressive' in command:
      argv.append('--config.sampling.steps=64')  # one a pixel
    workdir = main.parse(argv).workdir
    is_trained = '--model=' in command or (workdir / 'config.json').exists()
    if main.parse(argv).mode != 'train' and not is_trained:
      train = [flag for flag in argv if not re.match(r'--(mode|config\.(sampling|edit|c))', flag)]
      assert main.main([*train, *runs.TINY, *SHRUNK]) == 0, (page, command)
    assert main.main(argv) == 0, (page, command)
    ran.add(words)
  assert len(ran) > 12
  assert (place / 'runs' / 'digits' / 'samples' / 'grid.png').exists()


@pytest.fixture(scope='module')
def exported(place):
  """What the pages call runs/digits/export."""
  if not (place / 'runs' / 'digits' / 'export').is_dir():
    train = ['', '--config=configs/digits.py', *SHRUNK]
    assert main.main(train) == 0
    assert main.main([*train, '--mode=export']) == 0


@pytest.mark.parametrize(('page', 'command'), OF_MAIN)
def test_commands_parse(page, command, place, exported):
  parsed = main.parse(['', *shlex.split(command.replace('$i', '0'))[3:]])
  assert parsed.config.train.batch > 0


@pytest.mark.parametrize(('page', 'command'), OTHERS)
def test_other_commands_exist(page, command, place):
  if command.startswith(NOT_OURS):
    return
  words = shlex.split(command)
  if words[0] != 'python':
    assert words[0] in ('sbatch', 'kubectl', 'bash', 'gcloud', 'scancel', 'srun'), command
    return
  assert words[1] == '-m'
  if words[2] == 'experiments.NAME':
    return
  module = importlib.import_module(words[2])
  if not words[2].startswith('experiments.'):
    return
  flags = list(inspect.signature(module.run).parameters)
  flags += ['side', 'results', 'workdir'] if words[2] == 'experiments.toy_2d' else []
  rest = [w for w in words[3:] if w.lstrip('-').split('=')[0] not in flags and w != '--help']
  if any(word.startswith('--config=') for word in rest):
    main.parse(['', *rest])


def test_the_library_example_of_the_readme_runs(monkeypatch):
  block, _ = blocks(PAGES['README.md'], 'python')
  names = {}
  exec(block.replace('steps = 3000', 'steps = 3'), names)
  assert names['x'].shape == (64, 8, 8, 1)


def test_the_trained_model_of_the_readme_runs():
  _, block = blocks(PAGES['README.md'], 'python')
  names = {}
  exec(block, names)
  assert names['x'].shape == (16, 8, 8, 1)


@pytest.mark.parametrize('page', [p for p in PAGES if p not in ('README.md', 'docs/extending.md')])
def test_python_blocks_run(page, exported):
  for block in blocks(PAGES[page], 'python'):
    exec(block, {})


def anchors(text: str) -> set[str]:
  """The anchors that GitHub gives to headings."""
  headings = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
  return {
    re.sub(r'[^\w\- ]', '', heading).strip().lower().replace(' ', '-') for heading in headings
  }


@pytest.mark.parametrize('page', PAGES)
def test_links_and_pictures_exist(page):
  for link in re.findall(r'\]\(([^)]+)\)', PAGES[page]):
    if link.startswith('https://'):
      continue
    path, _, anchor = link.partition('#')
    target = (runs.ROOT / page).parent / path if path else runs.ROOT / page
    assert target.exists(), link
    if anchor:
      assert anchor in anchors(target.read_text()), link


def test_the_readme_is_short():
  assert os.path.getsize(runs.ROOT / 'README.md') < 10_240


def test_every_page_of_docs_is_linked_from_the_readme():
  for page in PAGES:
    if page.startswith('docs/'):
      assert f']({page})' in PAGES['README.md'], page


@pytest.mark.parametrize('page', ['README.md', 'experiments/README.md'])
def test_the_overviews_have_the_numbers_of_the_docs(page):
  docs = ' '.join(' '.join(PAGES[name].split()) for name in PAGES if name.startswith('docs/'))
  measured = re.findall(r'\d[\d.]* ± [\d.]*\d', PAGES[page])
  assert measured
  assert [number for number in measured if number not in docs] == []
