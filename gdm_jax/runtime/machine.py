"""What a run sets up on its machine before jax begins."""

import os
import pathlib
import sys

HUGE_PAGES = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
MALLOC = 'glibc.malloc.hugetlb'  # 1: malloc asks for huge pages
YNNPACK = 'xla_cpu_experimental_ynn_fusion_type'  # the operations that XLA gives to YNNPACK
TRIED = (0, 10), (0, 12)  # versions of jax that know this flag


def use_huge_pages():
  """Re-executes the program, as the same process, so that malloc uses transparent huge pages.

  A training step on a CPU allocates and frees gigabytes: with pages of 4 KiB that is a tenth of its
  time. glibc reads its tunables only at the start of a program, and Linux must offer huge pages via
  madvise. An explicit GLIBC_TUNABLES takes precedence; does nothing under a debugger.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if MALLOC in tunables or sys.gettrace() or not huge_pages_on_request():
    return
  os.environ['GLIBC_TUNABLES'] = f'{tunables}:{MALLOC}=1'.lstrip(':')
  sys.stdout.flush()
  sys.stderr.flush()
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def huge_pages_on_request() -> bool:
  """Whether the kernel gives huge pages to programs that ask, and to them alone."""
  return HUGE_PAGES.exists() and '[madvise]' in HUGE_PAGES.read_text()


def split_cpu(devices: int):
  """Makes the CPU that many devices; a device count in XLA_FLAGS takes precedence.

  XLA runs convolutions of few channels on one core; two devices use two cores.
  """
  in_flags = 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  if devices > 1 and not in_flags:
    import jax

    if jax.config.jax_num_cpu_devices == devices:
      return  # setting it again would fail once jax has begun
    jax.config.update('jax_num_cpu_devices', devices)


def choose_convolutions(devices: int):
  """Lets XLA's own convolutions run if the CPU is one device; XLA_FLAGS take precedence.

  jax gives convolutions to YNNPACK. That is faster if each device has one core, slower and less
  exact on several (docs/performance.md has the measurements). Versions of jax that were not tried
  are left alone: XLA aborts at a flag that it does not know.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  if devices > 1 or YNNPACK in flags:
    return
  import jax

  first, last = TRIED
  if first <= jax.__version_info__[:2] <= last:
    os.environ['XLA_FLAGS'] = f'{flags} --{YNNPACK}=-individual_convolution'.strip()
