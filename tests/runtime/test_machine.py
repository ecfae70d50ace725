"""What a run asks of the machine: huge pages, devices of a CPU, whose convolutions."""

import os
import pathlib
import subprocess
import sys

import pytest

from gdm_jax.runtime import machine
from gdm_jax.runtime.errors import ConfigError
from tests.support import runs

ASKING = 'always [madvise] never'
STARTED = """
import os, pathlib, sys
from gdm_jax.runtime import machine
print(os.getpid(), *sys.argv[2:])
machine.HUGE_PAGES = pathlib.Path(sys.argv[1])
machine.use_huge_pages()
print(os.environ.get('GLIBC_TUNABLES'))
"""


@pytest.mark.parametrize(
  ('kernel', 'given', 'starts', 'tunables'),
  [
    (ASKING, {}, 2, 'glibc.malloc.hugetlb=1'),
    (ASKING, {'GLIBC_TUNABLES': 'a.b=3'}, 2, 'a.b=3:glibc.malloc.hugetlb=1'),
    (ASKING, {'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=0'}, 1, 'glibc.malloc.hugetlb=0'),
    ('[always] madvise never', {}, 1, None),
    (None, {}, 1, None),
  ],
)
def test_a_program_restarts_once_where_huge_pages_are_for_the_asking(
  kernel, given, starts, tunables, tmp_path, monkeypatch
):
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  file = tmp_path / 'enabled'
  if kernel:
    file.write_text(kernel)
  (tmp_path / 'started.py').write_text(STARTED)
  given = {**given, 'PYTHONPATH': f'{tmp_path}:{runs.ROOT}'}
  said = runs.python('-m', 'started', file, 'an argument', **given).stdout.splitlines()
  assert len(said) == starts + 1
  assert len(set(said[:-1])) == 1  # the same process, with the same arguments
  assert said[0].endswith(' an argument')
  assert said[-1] == str(tunables)


TOUCHED = """
import ctypes, resource
from gdm_jax.runtime import machine
machine.use_huge_pages()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
memory = bytearray(2**28)
ctypes.memset((ctypes.c_char * 2**28).from_buffer(memory), 1, 2**28)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_pages_are_huge(tmp_path, monkeypatch):
  if not machine.huge_pages_on_request():
    pytest.skip('huge pages are not for the asking on this machine')
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  (tmp_path / 'touched.py').write_text(TOUCHED)
  path = f'{tmp_path}:{runs.ROOT}'
  assert int(runs.python('-m', 'touched', PYTHONPATH=path).stdout) < 2**28 / 4096 / 8


@pytest.mark.parametrize('how', ['code', 'runpy', 'standard input'])
def test_a_program_that_runs_the_module_is_not_started_again(how, tmp_path, monkeypatch):
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  file = tmp_path / 'enabled'
  file.write_text(ASKING)
  (tmp_path / 'started.py').write_text(STARTED)
  code = f"""
import runpy, sys
sys.argv = ['started', {str(file)!r}]
runpy.run_module('started', run_name='__main__', alter_sys=True)
"""
  environment = runs.environment(PYTHONPATH=f'{tmp_path}:{runs.ROOT}')
  words = {'code': ['-c', STARTED, str(file)], 'runpy': ['-c', code], 'standard input': ['-']}
  done = subprocess.run(
    [sys.executable, *words[how]],
    input=code,
    env=environment,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1] == 'None'
  assert len(done.stdout.splitlines()) == 2


WITHOUT_UNIX = """
import importlib, pkgutil, sys
sys.modules['fcntl'] = sys.modules['resource'] = sys.modules['pwd'] = None
import os, signal
for name in ('SIGHUP', 'SIGUSR1', 'SIGUSR2'):
  delattr(signal, name)
del os.sysconf
import gdm_jax
for module in pkgutil.walk_packages(gdm_jax.__path__, 'gdm_jax.'):
  importlib.import_module(module.name)
from gdm_jax.runtime import distributed, memory
assert len(distributed.STOPPING) == 2
print(memory.host_memory())
"""


def test_a_system_without_unix_imports_everything():
  # In the place of Windows, on which nothing was tried.
  assert int(runs.python('-c', WITHOUT_UNIX).stdout) == 8 * 2**30


CONVOLUTION = """
import sys, jax
from gdm_jax import main
main.prepare(main.parse(sys.argv))
convolve = jax.jit(lambda x, w: jax.lax.conv(x, w, (1, 1), 'SAME'))
program = convolve.lower(jax.numpy.ones((8, 32, 16, 16)), jax.numpy.ones((32, 32, 3, 3))).compile()
print('ynn_fusion' in program.as_text(), len(jax.devices()))
"""


AVX512 = 'avx512f' in pathlib.Path('/proc/cpuinfo').read_text()


@pytest.mark.parametrize(
  ('devices', 'flags', 'printed'),
  [
    (1, '', f'{AVX512 and machine.have_one_core(1)} 1'),
    (2, '', f'{AVX512 and machine.have_one_core(2)} 2'),
    (1, '--xla_cpu_experimental_ynn_fusion_type=+individual_convolution', 'True 1'),
  ],
)
def test_only_devices_of_one_core_with_512_bits_convolve_by_ynnpack(devices, flags, printed):
  overrides = ['--config=configs/digits.py', f'--config.machine.cpu_devices={devices}']
  assert runs.python('-c', CONVOLUTION, *overrides, XLA_FLAGS=flags).stdout.strip() == printed


def test_cores_are_those_that_the_process_may_use(monkeypatch):
  monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: {3, 5}, raising=False)
  assert [machine.have_one_core(devices) for devices in (1, 2, 3)] == [False, True, True]


@pytest.fixture
def jax_config():
  """jax's config of compiled programs, as it was before the test afterwards."""
  import jax

  names = [f'jax_compilation_cache_{name}' for name in ('dir', 'max_size')]
  names.append('jax_persistent_cache_min_compile_time_secs')
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  yield jax.config
  for name, value in before.items():
    jax.config.update(name, value)


def test_compiled_programs_are_kept_in_the_users_cache(jax_config, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  machine.keep_programs('auto')
  kept = pathlib.Path(jax_config.jax_compilation_cache_dir)
  assert kept.parent == tmp_path / 'gdm_jax'
  assert kept.is_dir()
  monkeypatch.setattr(machine, '_processor', lambda: 'another')
  assert machine.user_cache() != kept  # what is compiled for one may not run on the other


def test_a_folder_of_the_environment_is_left_alone(jax_config, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  jax_config.update('jax_compilation_cache_dir', str(tmp_path))
  machine.keep_programs('auto')
  assert jax_config.jax_compilation_cache_dir == str(tmp_path)
  assert not (tmp_path / 'cache').exists()


def test_without_a_place_to_write_nothing_is_kept(jax_config, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
  machine.keep_programs('auto')
  machine.keep_programs('')
  assert jax_config.jax_compilation_cache_dir is None
  with pytest.raises(ConfigError, match=r'machine\.compilation_cache = .*file/mine: '):
    machine.keep_programs(str(tmp_path / 'file' / 'mine'))
