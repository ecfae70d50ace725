"""The commands of experiments, in this process, and what they leave behind."""

import base64
import csv
import html.parser
import re
import sys

from PIL import Image

from experiments.lib import command
from gdm_jax import main
from tests.support import runs

FAST = ('features=pixels', 'seeds=0-29')


def trained(tmp_path_factory, config, *overrides):
  workdir = tmp_path_factory.mktemp(config) / 'run'
  arguments = runs.arguments(workdir, *overrides, steps=2, config=config)
  assert main.main(['', *arguments]) == 0
  return workdir


def start(module, monkeypatch, config, workdir, *flags, trained=True):
  """The command of an experiment, here in this process."""
  fast = [f'--config.evaluation.{key}' for key in FAST]
  argv = ['', f'--config={runs.ROOT}/configs/{config}.py', f'--workdir={workdir}', *runs.TINY]
  monkeypatch.setattr(sys, 'argv', [*argv, *fast, *flags])
  command.start(module.run, module.__doc__, trained)


def rows(workdir, name):
  with (workdir / name / 'results.csv').open(newline='') as f:
    return list(csv.DictReader(f))


class Open(html.parser.HTMLParser):
  """Keeps track of the open tags."""

  def left(self, page):
    self.tags = []
    self.feed(page)
    return self.tags

  def handle_starttag(self, tag, attrs):
    if tag not in ('meta', 'img'):
      self.tags.append(tag)

  def handle_endtag(self, tag):
    assert self.tags.pop() == tag


def check_report(folder, *words, pictures=('figure',)):
  """The page stands alone: no reference leaves it, it shows the pictures, and it is closed."""
  page = (folder / 'report.html').read_text()
  assert Open().left(page) == []
  assert not re.search(r'(src|href)="(?!data:)', page)
  assert 'http-equiv' not in page
  images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
  for name, data in zip(pictures, images, strict=True):
    file = folder / f'{name}.png'
    assert base64.b64decode(data) == file.read_bytes()
    assert min(Image.open(file).size) > 250, name
  for word in words:
    assert word in page
