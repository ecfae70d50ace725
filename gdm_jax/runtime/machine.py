"""What a run asks of the machine it is on, before jax does anything."""

import os
import pathlib
import sys

HUGE_PAGES = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')
MALLOC = 'glibc.malloc.hugetlb'  # 1: glibc asks for huge pages
YNNPACK = 'xla_cpu_experimental_ynn_fusion_type'  # what XLA hands to that library, on a CPU


def use_huge_pages():
  """Starts the program anew, as the same process, with its memory in huge pages.

  A step on a CPU takes gigabytes from the system and gives them back: in pages of 4 KiB that is a
  tenth of its time. Where Linux gives huge pages only to those who ask, glibc asks if it was told
  before the program began. GLIBC_TUNABLES that say so or otherwise go first, and a debugger is not
  shaken off.
  """
  tunables = os.environ.get('GLIBC_TUNABLES', '')
  if MALLOC in tunables or sys.gettrace() or not on_request():
    return
  os.environ['GLIBC_TUNABLES'] = f'{tunables}:{MALLOC}=1'.lstrip(':')
  sys.stdout.flush()
  sys.stderr.flush()
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def on_request() -> bool:
  """Whether the kernel gives huge pages to those who ask, and to them alone."""
  return HUGE_PAGES.exists() and '[madvise]' in HUGE_PAGES.read_text()


def split_cpu(devices: int):
  """Makes that many devices of the CPU.

  XLA runs convolutions of few channels on one core, whatever there are; two devices use two.
  XLA_FLAGS that say how many go first.
  """
  said = 'xla_force_host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  if devices > 1 and not said:
    import jax

    if jax.config.jax_num_cpu_devices == devices:
      return  # a second time it could not be set, once jax has begun
    jax.config.update('jax_num_cpu_devices', devices)


def choose_convolutions(devices: int):
  """Lets XLA's own convolutions run where the CPU is one device.

  jax 0.10 hands convolutions to YNNPACK. That is faster on one core, so where each device has
  one, and slower and less exact on several; the README's table says by how much. XLA_FLAGS that
  choose go first. Other versions of jax are left alone: XLA aborts at a flag it does not know.
  """
  given = os.environ.get('XLA_FLAGS', '')
  if devices > 1 or YNNPACK in given:
    return
  import jax

  if jax.__version_info__[:2] == (0, 10):
    os.environ['XLA_FLAGS'] = f'{given} --{YNNPACK}=-individual_convolution'.strip()
