"""What a run asks of the machine: huge pages, devices of a CPU, whose convolutions."""

import pytest

from gdm_jax.runtime import machine
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
def test_a_program_starts_anew_once_where_huge_pages_are_for_the_asking(
  kernel, given, starts, tunables, tmp_path, monkeypatch
):
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  file = tmp_path / 'enabled'
  if kernel:
    file.write_text(kernel)
  said = runs.python('-c', STARTED, file, 'an argument', **given).stdout.splitlines()
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


def test_pages_are_huge(monkeypatch):
  if not machine.huge_pages_on_request():
    pytest.skip('huge pages are not for the asking on this machine')
  monkeypatch.delenv('GLIBC_TUNABLES', raising=False)
  assert int(runs.python('-c', TOUCHED).stdout) < 2**28 / 4096 / 8


CONVOLUTION = """
import sys, jax
from gdm_jax import main
main.prepare(main.parse(sys.argv))
convolve = jax.jit(lambda x, w: jax.lax.conv(x, w, (1, 1), 'SAME'))
program = convolve.lower(jax.numpy.ones((8, 32, 16, 16)), jax.numpy.ones((32, 32, 3, 3))).compile()
print('ynn_fusion' in program.as_text(), len(jax.devices()))
"""


@pytest.mark.parametrize(
  ('devices', 'flags', 'printed'),
  [
    (1, '', 'False 1'),
    (2, '', 'True 2'),
    (1, '--xla_cpu_experimental_ynn_fusion_type=+individual_convolution', 'True 1'),
  ],
)
def test_only_a_cpu_of_several_devices_convolves_by_ynnpack(devices, flags, printed):
  overrides = ['--config=configs/digits.py', f'--config.machine.cpu_devices={devices}']
  assert runs.python('-c', CONVOLUTION, *overrides, XLA_FLAGS=flags).stdout.strip() == printed
