"""What the page does with the server, without a browser."""

import base64
import contextlib
import http.client
import json
import threading
import urllib.parse
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from gdm_jax.explore.server import Server

SHAPE = (8, 8, 1)


class Answer(NamedTuple):
  """What came back."""

  status: int
  body: bytes
  headers: dict[str, str]

  @property
  def json(self):
    """The body, which is JSON."""
    return json.loads(self.body)

  @property
  def lines(self) -> list[dict]:
    """The body, which is lines of JSON."""
    return [json.loads(line) for line in self.body.splitlines()]


class Client:
  """Asks a server; `headers` of None are left out."""

  def __init__(self, address: str):
    url = urllib.parse.urlsplit(address)
    self.host, self.token = url.netloc, urllib.parse.parse_qs(url.query)['token'][0]

  def open(self, method: str, path: str, body: bytes | None = None, **headers):
    """The response, of which only the head was read."""
    connection = http.client.HTTPConnection(self.host, timeout=120)
    given = {'Host': self.host, 'X-Token': self.token}
    if body is not None:
      given['Content-Length'] = str(len(body))
    given |= {name.replace('_', '-'): value for name, value in headers.items()}
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in given.items():
      if value is not None:
        connection.putheader(name, value)
    connection.endheaders(body)
    return connection.getresponse()

  def ask(self, method: str, path: str, body: bytes | None = None, **headers) -> Answer:
    """The whole answer."""
    response = self.open(method, path, body, **headers)
    return Answer(response.status, response.read(), dict(response.headers))

  def generate(self, path: str = '/generate', **changes) -> list[dict]:
    """The lines of an answer that succeeds."""
    answer = self.ask('POST', path, json.dumps(request(**changes)).encode())
    assert answer.status == 200, answer.body
    return answer.lines


def request(seed=5, **changes) -> dict:
  """A good request for the picture of one seed."""
  return {
    'tab': 'test',
    'draft': False,
    'strategy': 'main',
    'order': [],
    'steps': 8,
    'solver': 'euler',
    'label': -1,
    'guidance': 1,
    'groups': [{'from': seed, 'to': seed + 1, 'at': 0} for _ in range(4)],
    **changes,
  }


def last_pictures(lines: list[dict]) -> np.ndarray:
  """The data of an answer, [n, h, w, c]."""
  (*_, last) = (line for line in lines if line['kind'] == 'frame')
  return np.stack([
    np.frombuffer(base64.b64decode(text), np.uint8).reshape(SHAPE) for text in last['pictures']
  ])  # fmt: skip


@contextlib.contextmanager
def served(server: Server) -> Iterator[None]:
  """Answers in a thread."""
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield
  finally:
    server.answers.stop()
    server.shutdown()
    server.server_close()
    thread.join()
