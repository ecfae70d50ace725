"""The benchmark on a tiny model, with stubs as peers; the flags that the launch files use."""

import json
import re
import subprocess
import sys

import jax
import pytest

from experiments.benchmarks import throughput
from gdm_jax import build, main
from gdm_jax.modes import describe
from gdm_jax.runtime.errors import ConfigError, DataError
from gdm_jax.training import flops
from tests.support import experiments, runs

LAUNCH = runs.ROOT / 'experiments' / 'launch'
PEER = """
import sys

batch, dtype = 'batch=16', 'float32'
assert '--' + batch in sys.argv and '--dtype=' + dtype in sys.argv and sys.argv[-1] == '--compile'
print('parameters 55.70 M, forward 42.4 GFLOP an image')
print('train: 0.50 images/s, 45.3% of the matrix-product rate 0.19 TFLOP/s')
print('sample: 0.25 network evaluations (images x steps) a second')
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
  monkeypatch.setattr(throughput, 'SIZES', (128, 256))


def start(monkeypatch, workdir, *flags):
  experiments.start(
    throughput, monkeypatch, 'digits', workdir, '--repeats=3', *flags, trained=False
  )
  return json.loads((workdir / 'throughput.json').read_text())


def test_entries_are_sensible_and_one_for_each_key(tmp_path, monkeypatch, capsys):
  (entry,) = start(monkeypatch, tmp_path)
  for name, value in entry.items():
    if name.endswith(('second', '_flop', '_bytes', '_mfu', '_image', 'seconds', '_on_device')):
      assert value > 0, name
  assert 0 <= entry['share_beside_network'] <= 1
  for name in ('step', 'walk'):
    low, middle, high = (entry[f'{name}_seconds{end}'] for end in ('_p10', '', '_p90'))
    assert low <= middle <= high
  assert entry['images_per_second'] == pytest.approx(runs.BATCH / entry['loop_seconds'])
  assert entry['evaluations_of_walk'] == 8 * 4
  assert entry['dtype'] == 'float32'
  assert entry['device'] in capsys.readouterr().out

  # So many images and steps that the digits that are printed tell.
  arguments = runs.arguments(tmp_path, '--config.sampling.steps=4000', steps=1000)
  config = main.parse(['', *arguments]).config
  describe.run(config)
  printed = capsys.readouterr().out
  run = float(re.search(r'whole run .* ([\d.e-]+) EFLOP', printed)[1]) * 1e18
  assert entry['training_flop_per_image'] * config.train.duration == pytest.approx(run, rel=0.02)
  sample = float(re.search(r'one sample .* ([\d.]+) GFLOP', printed)[1]) * 1e9
  assert entry['evaluation_flop'] * 4000 == pytest.approx(sample, rel=0.02)

  # The same key again replaces its entry; another batch is another line of the table.
  model = '--config.model.classes=3', '--config.sampling.guidance=2'
  flags = '--random_images=40', '--config.sampling.solver=heun', *model
  (again,) = start(monkeypatch, tmp_path, *flags)
  assert again['evaluations_of_walk'] == 4 * entry['evaluations_of_walk']
  both = start(monkeypatch, tmp_path, '--config.train.batch=8')
  assert [e['batch'] for e in both] == [8, 16]
  assert both[1] == again
  table = capsys.readouterr().out.rpartition('device ')[2].splitlines()
  assert [line.split()[4] for line in table[1:3]] == ['8', '16']


def test_flops_are_those_of_direct_convolutions(tmp_path, monkeypatch):
  """At 128 images a CPU runs the network in another form than at one, and not the one counted."""
  config = main.parse(['', *runs.arguments(tmp_path, '--config.model.ddpmpp.channels=128')]).config
  system = build.system(config)
  one, many = (flops.network(config, system, batch) for batch in (1, 128))
  assert many / 128 == pytest.approx(one, rel=0.01)

  params = jax.eval_shape(system.predictor.init, jax.random.key(0))
  x = jax.ShapeDtypeStruct((128, *config.data.shape), 'float32')
  alpha = jax.ShapeDtypeStruct((128, system.process.grouping.num_groups), 'float32')
  run = jax.jit(system.predictor).lower(params, x, alpha).cost_analysis()['flops']
  assert run < 0.8 * many

  def no_cpu(backend):
    raise RuntimeError(f'Unknown backend {backend}')

  monkeypatch.setattr(jax, 'local_devices', no_cpu)
  with pytest.raises(ConfigError, match='add it to JAX_PLATFORMS: Unknown backend cpu'):
    flops.network(config, system, 1)


def test_a_peer_is_timed_beside(tmp_path, monkeypatch, capsys):
  script = tmp_path / 'peer.py'
  script.write_text(PEER)
  flags = f'--peer={script}', f'--peer_python={sys.executable}', '--peer_flags=--fused --compile'
  (entry,) = start(monkeypatch, tmp_path, *flags)
  assert entry['peer'] == {'images_per_second_on_device': 0.5, 'evaluations_per_second': 0.25}
  out = capsys.readouterr().out
  ratio = re.search(r'^ratio +(\S+) +(\S+)$', out, re.MULTILINE)
  assert float(ratio[1]) == pytest.approx(2 * entry['images_per_second_on_device'], rel=0.01)
  assert float(ratio[2]) == pytest.approx(4 * entry['evaluations_per_second'], rel=0.01)
  assert 'sampling.batch = 8, but the peer samples 16' in out


@pytest.mark.parametrize(
  ('text', 'flags', 'message'),
  [
    ('import torch_that_is_not_here', (), 'has no torch_that_is_not_here, which --peer='),
    ('raise SystemExit("no such device")', (), 'ended with code 1: no such device'),
    ('print("train: 1.5 images/s")', (), "printed no line like '^sample: "),
    ('', ('--peer_python=no-such-python',), '--peer_python=no-such-python: No such file'),
    (None, (), 'peer.py: no such file'),
    ('', ('--repeats=0',), '--repeats=0 must be at least 1'),
  ],
)
def test_bad_input_is_named_in_a_line(text, flags, message, tmp_path, monkeypatch, capsys):
  script = tmp_path / 'peer.py'
  if text is not None:
    script.write_text(text)
  with pytest.raises(SystemExit) as stop:
    start(monkeypatch, tmp_path, f'--peer={script}', f'--peer_python={sys.executable}', *flags)
  assert stop.value.code == 2
  *_, last = capsys.readouterr().err.splitlines()
  assert last.startswith('error: ')
  assert message in last


def test_a_solver_that_chooses_its_steps_is_refused(tmp_path, monkeypatch, capsys):
  pytest.importorskip('diffrax')
  with pytest.raises(SystemExit) as stop:
    start(monkeypatch, tmp_path, '--config.sampling.solver=adaptive')
  assert stop.value.code == 2
  assert "sampling.solver = 'adaptive' chooses its steps itself" in capsys.readouterr().err


@pytest.mark.parametrize('name', ['tpu_pod.sh', 'slurm.sh', 'jobset.yaml'])
def test_launch_files_use_existing_flags(name):
  """What follows `gdm_jax.main` in them, with values for their variables, is understood."""
  text = (LAUNCH / name).read_text()
  (after,) = re.findall(r'-m gdm_jax\.main(.*?)(?=\n *(?:ports:|>>)|\n*\Z)', text, re.DOTALL)
  flags = re.findall(r'--[\w.]+(?:=[^\s\\]+)?', after)
  examples = re.findall(r'^# .*? (--config=\S+ --workdir=\S+)', text, re.MULTILINE)
  flags += [flag for line in examples for flag in line.split()]
  flags = [flag.replace('$JOB_COMPLETION_INDEX', '1') for flag in flags]
  flags = [flag.replace('=configs/', f'={runs.ROOT}/configs/') for flag in flags]
  command = main.parse(['', *flags])
  assert command.config.data.name == 'tfds:cifar10'
  assert (
    command.cluster
    == {
      'tpu_pod.sh': ('', 0, -1, True),
      'slurm.sh': ('', 0, -1, None),
      'jobset.yaml': ('gdm-train-0-0.gdm:1234', 2, 1, None),
    }[name]
  )


@pytest.mark.parametrize('name', ['tpu_pod.sh', 'slurm.sh'])
def test_launch_scripts_are_bash(name):
  subprocess.run(['bash', '-n', LAUNCH / name], check=True)


def test_a_slice_is_started_once_with_the_arguments_unchanged(tmp_path):
  """With a gcloud that runs the command here, and a python that writes down its arguments."""
  (tmp_path / 'gdm_jax').mkdir()
  for name, text in [
    ('gcloud', f'cd {tmp_path}\nfor a; do [[ $a != --command=* ]] || bash -c "${{a#*=}}"; done'),
    ('python3', 'printf "<%s>" "$@"; mkfifo f; read < f'),
  ]:
    (tmp_path / name).write_text(f'#!/bin/bash\n{text}\n')
    (tmp_path / name).chmod(0o755)

  def pod(*arguments):
    path = f'{tmp_path}:/usr/bin:/bin'
    environment = {'PATH': path, 'TPU_NAME': 'slice', 'ZONE': 'zone'}
    command = ['bash', LAUNCH / 'tpu_pod.sh', *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)

  fifo, log = tmp_path / 'gdm_jax' / 'f', tmp_path / 'gdm_jax' / 'gdm_jax.log'
  assert pod('start', '--workdir=/a b', '--config.sampling.order=(1, 0)').returncode == 0
  for _ in range(100):
    if fifo.exists():
      break
    subprocess.run(['sleep', '0.1'], check=True)
  assert '<--distributed><--workdir=/a b><--config.sampling.order=(1, 0)>' in log.read_text()
  second = pod('start', '--workdir=/a b')
  assert second.returncode
  assert 'it runs already' in second.stderr
  assert pod('stop').returncode == 0


def test_the_jobset_agrees_with_itself():
  yaml = pytest.importorskip('yaml')
  jobset = yaml.safe_load((LAUNCH / 'jobset.yaml').read_text())
  assert jobset['kind'] == 'JobSet'
  (jobs,) = jobset['spec']['replicatedJobs']
  job = jobs['template']['spec']
  pod = job['template']['spec']
  (container,) = pod['containers']
  shell = container['command'][-1]
  name = jobset['metadata']['name']
  (port,) = container['ports']
  address = f'{name}-{jobs["name"]}-0-0.{name}:{port["containerPort"]}'
  assert f'--coordinator={address} ' in shell
  assert f'--num_processes={job["parallelism"]} ' in shell
  assert (job['parallelism'], job['completionMode']) == (job['completions'], 'Indexed')
  assert shell.startswith('exec python ')
  assert '\n' not in shell
  mounted = {mount['name'] for mount in container['volumeMounts']}
  assert mounted == {volume['name'] for volume in pod['volumes']}


@pytest.mark.parametrize(
  'wrong', ['train.weighting=x', 'sampling.solver=adaptive', 'data.name=folder:nowhere']
)
def test_a_wrong_config_is_refused_before_the_peer_is_timed(wrong, monkeypatch):
  monkeypatch.setattr(throughput.peers, 'run', None)
  config = main.parse(['', *runs.arguments('unused', f'--config.{wrong}')]).config
  with pytest.raises((ConfigError, DataError), match=wrong.split('=')[0].replace('.', r'\.')):
    throughput.run(config, runs.ROOT / 'unused', peer='peer.py')
