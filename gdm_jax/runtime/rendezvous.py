"""Before jax joins processes: is it this run that holds the coordinator's port?

jax binds the port so that two programs may share it, and a process that reaches the coordinator of
another run ends that run. So process 0 first holds the port alone and greets the others.
"""

import contextlib
import socket
import time

from gdm_jax.runtime.errors import ConfigError

TIMEOUT = 300.0  # seconds for all to come, as jax has it
ANSWER_SECONDS = 10.0  # for process 0 to answer a greeting; it does nothing else
HELLO = b'gdm_jax'
LINE = 4096  # bytes of a greeting at most


def meet(coordinator: str, num_processes: int, process_id: int, run: str):
  """Returns when all processes of a run have greeted process 0.

  coordinator: HOST:PORT of process 0. run: the same text in all processes of a run, and another in
  others. Raises ConfigError if the port is taken by another program, or if not all come.
  """
  host, port = coordinator.rsplit(':', 1)
  if process_id == 0:
    _welcome(coordinator, int(port), num_processes, run)
  else:
    _greet(coordinator, host.strip('[]'), int(port), process_id, run)


def _welcome(coordinator, port, num_processes, run):
  """Holds the port until every other process has come."""
  both = socket.has_dualstack_ipv6()
  try:
    server = socket.create_server(
      ('', port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
    )
  except OSError as error:
    raise ConfigError(
      f'--coordinator={coordinator}: the port cannot be opened ({error.strerror}), another program '
      'may hold it; take another port'
    ) from None
  missing, deadline = set(range(1, num_processes)), time.monotonic() + TIMEOUT
  with server:
    while missing:
      server.settimeout(max(deadline - time.monotonic(), 0.01))
      try:
        connection, _ = server.accept()
      except TimeoutError:
        raise ConfigError(
          f'--num_processes={num_processes}: processes {sorted(missing)} did not come within '
          f'{TIMEOUT:g} seconds'
        ) from None
      with connection, contextlib.suppress(OSError, ValueError):
        connection.settimeout(ANSWER_SECONDS)
        hello, number, other = connection.recv(LINE).split(b' ', 2)
        if hello == HELLO:
          connection.sendall(HELLO + b' ' + run.encode())
          if other == run.encode():
            missing.discard(int(number))


def _greet(coordinator, host, port, process_id, run):
  """Waits until process 0 has answered."""
  deadline = time.monotonic() + TIMEOUT
  while True:
    try:
      with socket.create_connection((host, port), ANSWER_SECONDS) as connection:
        connection.sendall(b'%s %d %s' % (HELLO, process_id, run.encode()))
        answer = connection.recv(LINE)
        break
    except ConnectionResetError:
      answer = b''
      break
    except OSError as error:  # process 0 is not there yet, nor perhaps its name
      if time.monotonic() > deadline:
        raise ConfigError(
          f'--coordinator={coordinator}: process 0 did not answer within {TIMEOUT:g} seconds '
          f'({error})'
        ) from None
      time.sleep(0.1)
  if not answer.startswith(HELLO):
    raise ConfigError(f'--coordinator={coordinator}: another program holds that port')
  if (other := answer.removeprefix(HELLO + b' ')) != run.encode():
    raise ConfigError(
      f'--coordinator={coordinator}: process 0 there runs {other.decode(errors="replace")}, not '
      f'{run}; give every run a port of its own'
    )
