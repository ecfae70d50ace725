"""Only processes of one run meet, and a port that another program holds is named."""

import contextlib
import socket
import threading
from concurrent import futures

import pytest

from gdm_jax.runtime import rendezvous
from gdm_jax.runtime.errors import ConfigError


@pytest.fixture
def port():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return free.getsockname()[1]


def ending(port, count, number, run):
  """What `meet` says: '' if all have come."""
  try:
    rendezvous.meet(f'localhost:{port}', count, number, run)
  except ConfigError as error:
    return str(error)
  return ''


@pytest.mark.parametrize('count', [1, 2, 5])
def test_all_of_a_run_meet(port, count):
  for _ in range(2):  # and the port is free again
    with futures.ThreadPoolExecutor(count) as pool:
      endings = pool.map(lambda i: ending(port, count, i, 'a'), range(count)[::-1])
      assert list(endings) == [''] * count


def test_a_process_of_another_run_is_told_and_does_no_harm(port):
  with futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(ending, port, 2, 0, 'run a')
    stranger = ending(port, 2, 1, 'run b')
    assert 'process 0 there runs run a, not run b; give every run a port of its own' in stranger
    assert ending(port, 2, 1, 'run a') == ''
    assert first.result() == ''


def test_a_port_that_is_taken_is_named(port):
  with socket.create_server(('localhost', port)):
    assert f'--coordinator=localhost:{port}: the port cannot be opened' in ending(port, 2, 0, 'a')


def test_what_answers_something_else_is_no_coordinator(port):
  with socket.create_server(('localhost', port)) as server:

    def answer():
      connection, _ = server.accept()
      with connection:
        connection.sendall(b'HTTP/1.1 400 Bad Request\r\n')

    thread = threading.Thread(target=answer)
    thread.start()
    assert 'another program holds that port' in ending(port, 2, 1, 'a')
    thread.join()


def test_noise_does_not_disturb(port):
  with futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(ending, port, 2, 0, 'a')
    for noise in (b'', b'\0\xff', b'gdm_jax', b'gdm_jax x a', b'GET / HTTP/1.1\r\n'):
      sent = False
      while not sent:
        with (
          contextlib.suppress(ConnectionRefusedError),
          socket.create_connection(('localhost', port)) as connection,
        ):
          connection.sendall(noise)
          sent = True
    assert ending(port, 2, 1, 'a') == ''
    assert first.result() == ''


def test_those_that_do_not_come_are_named(port, monkeypatch):
  monkeypatch.setattr(rendezvous, 'TIMEOUT', 0.2)
  assert (
    ending(port, 3, 0, 'a') == '--num_processes=3: processes [1, 2] did not come within 0.2 seconds'
  )
  assert 'process 0 did not answer within 0.2 seconds' in ending(port, 3, 1, 'a')
