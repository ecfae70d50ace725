"""The server of the page: who may ask, what is asked, and answers piece by piece.

Only a browser that knows the token gets an answer, and only for a page of this server: other pages
open in the same browser are known by their Origin, and names that were made to point here by their
Host.
"""

import base64
import contextlib
import hashlib
import hmac
import http.server
import ipaddress
import json
import re
import secrets
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from http import HTTPStatus
from importlib import resources

from gdm_jax.explore.answers import Answers
from gdm_jax.runtime import console
from gdm_jax.runtime.errors import ConfigError, GdmError, InputError

LOCAL = ('127.0.0.1', 'localhost', '::1')
SECONDS = 30  # to send a request, or to take a piece of an answer
DRAIN_SECONDS = 1  # to wait for what is left of a refused request
MOST_DRAINED = 2**26  # bytes of it
LINE = b'\n'


class Refusal(Exception):
  """An answer of 4xx."""

  def __init__(self, status: HTTPStatus, message: str):
    super().__init__(message)
    self.status = status


class Server(http.server.ThreadingHTTPServer):
  """Serves the page of one model. `port` is the one that it got."""

  daemon_threads = True
  answers: Answers

  def __init__(self, host: str, port: int):
    """Listens, so that no other program can take the port. Raises ConfigError."""
    self.token, self.host = secrets.token_urlsafe(16), host
    page = resources.files('gdm_jax.explore').joinpath('page.html').read_text()
    self.page, self.policy = page.encode(), content_security_policy(page)
    try:
      self.address_family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
      super().__init__((host, port), Handler)
    except (OSError, OverflowError, UnicodeError) as error:
      reason = getattr(error, 'strerror', None) or str(error)
      raise ConfigError(
        f'explore.host = {host}, explore.port = {port}: {reason}; take another, or '
        '--config.explore.port=0 for any that is free'
      ) from None
    self.port = self.server_address[1]

  def server_bind(self):
    """As in the library, without asking a name server for this machine's name."""
    self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    self.socket.bind(self.server_address)
    self.server_address = self.socket.getsockname()
    self.server_name, self.server_port = self.host, self.server_address[1]

  @property
  def address(self) -> str:
    """Where the page is, with its token."""
    host = f'[{self.host}]' if ':' in self.host else self.host
    host = {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(host, host)
    return f'http://{host}:{self.port}/?token={self.token}'

  def is_own(self, host: str) -> bool:
    """Whether the Host of a request is this server's: none that a foreign name server can make."""
    name = urllib.parse.urlsplit(f'//{host}').hostname or ''
    if name in (*LOCAL, self.host.lower()):
      return True
    if self.host in LOCAL:
      return False
    with contextlib.suppress(ValueError):
      return bool(ipaddress.ip_address(name))  # an address needs no name server
    return name == socket.gethostname().lower()

  def handle_error(self, request, client_address):
    """A connection that broke is nobody's business."""


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers one request. All errors are JSON with one sentence."""

  server: Server
  timeout = SECONDS
  server_version, sys_version = 'gdm_jax', ''

  def do_GET(self):
    """The page, and what it must know of the model."""
    self._answer({'/': self._page, '/model': self._model})

  def do_POST(self):
    """A picture, a saved page, or a picture that is dropped."""
    answers = {'/picture': self._picture, '/generate': self._generate, '/save': self._save}
    self._answer(answers)

  def _answer(self, answers):
    try:
      path, _, query = self.path.partition('?')
      self._check_sender(query)
      if path not in answers:
        raise Refusal(HTTPStatus.NOT_FOUND, f'there is no {path[:60]!r} here')
      answers[path]()
    except Refusal as error:
      self._error(error.status, str(error))
    except InputError as error:
      self._error(HTTPStatus.BAD_REQUEST, str(error))
    except TimeoutError:
      self._error(HTTPStatus.REQUEST_TIMEOUT, f'the request did not come within {SECONDS} s')
    except (BrokenPipeError, ConnectionError):
      self.close_connection = True  # the page asks for something else by now
    except Exception as error:
      self._error(HTTPStatus.INTERNAL_SERVER_ERROR, self._told(error))

  def _told(self, error):
    """What is said of an error; what nobody foresaw is printed too."""
    if isinstance(error, GdmError):
      return str(error)
    message = f'{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ""}'
    console.log(f'error: {self.command} {self.path[:60]!r}: {message}')
    return f'this failed, and is not your fault: {type(error).__name__}'

  def _check_sender(self, query):
    """Raises Refusal for a foreign Host or Origin, and for a wrong token."""
    host, origin = self.headers.get('Host', ''), self.headers.get('Origin')
    try:
      own = self.server.is_own(host)
    except ValueError:  # of brackets that do not close
      own = False
    if not own:
      raise Refusal(HTTPStatus.FORBIDDEN, f'Host {host[:60]!r} is not this server')
    if origin is not None and origin != f'http://{host}':
      raise Refusal(HTTPStatus.FORBIDDEN, f'Origin {origin[:60]!r} is not this page')
    token = self.headers.get('X-Token') or urllib.parse.parse_qs(query).get('token', [''])[0]
    if not hmac.compare_digest(token.encode(errors='replace'), self.server.token.encode()):
      raise Refusal(
        HTTPStatus.FORBIDDEN, 'the token is missing or wrong: open the address that was printed'
      )

  def _page(self):
    self._send(HTTPStatus.OK, 'text/html; charset=utf-8', self.server.page)

  def _model(self):
    self._send_json(HTTPStatus.OK, self.server.answers.model())

  def _picture(self):
    body = self._body(int(self.server.answers.upload_mib * 2**20))
    name = urllib.parse.unquote(self.headers.get('X-Name', '')) or 'picture'
    name = re.sub(r'[^\w.+ -]+', '_', name)[-80:]
    self._send_json(HTTPStatus.OK, self.server.answers.picture(name, body))

  def _generate(self):
    self._stream(self.server.answers.generate(self._body(self.server.answers.request_bytes)))

  def _save(self):
    self._stream(self.server.answers.save(self._body(self.server.answers.request_bytes)))

  def _body(self, most: int) -> bytes:
    """The body of the request. Raises Refusal for one that is too long, or of unknown length."""
    length = self.headers.get('Content-Length', '')
    if not (length.isascii() and length.isdigit()):
      raise Refusal(HTTPStatus.LENGTH_REQUIRED, 'Content-Length must say how long the body is')
    if len(length) > 15 or int(length) > most:
      raise Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f'{length[:20]} bytes: at most {most:,} are taken'
      )
    body = self.rfile.read(int(length))
    if len(body) < int(length):
      raise Refusal(HTTPStatus.BAD_REQUEST, f'{len(body)} bytes came of {length}')
    return body

  def _stream(self, lines: Iterator[dict]):
    """Sends lines of JSON as they come; what is wrong before the first is an error of 4xx."""
    lines = iter(lines)
    first = next(lines)
    self._head(HTTPStatus.OK, 'application/x-ndjson', None)
    self.wfile.write(json.dumps(first).encode() + LINE)
    try:
      for line in lines:
        self.wfile.write(json.dumps(line).encode() + LINE)
    except OSError:
      raise
    except Exception as error:
      self.wfile.write(json.dumps({'kind': 'error', 'error': self._told(error)}).encode() + LINE)
    finally:
      lines.close()

  def send_error(self, code, message=None, explain=None):
    """What the library refuses, in JSON; methods that do not exist are the asker's fault."""
    status = HTTPStatus(code)
    if status == HTTPStatus.NOT_IMPLEMENTED:
      status = HTTPStatus.METHOD_NOT_ALLOWED
    self._error(status, message or status.phrase)

  def _error(self, status, message):
    self.close_connection = True
    with contextlib.suppress(OSError):
      self._send_json(status, {'error': message})
      self._drain()

  def _drain(self):
    """Reads what the client still sends: closed before that, it would not see the answer."""
    self.wfile.flush()
    self.connection.shutdown(socket.SHUT_WR)
    self.connection.settimeout(DRAIN_SECONDS)
    for _ in range(MOST_DRAINED // 2**16):
      if not self.connection.recv(2**16):
        return

  def _send_json(self, status, tree):
    self._send(status, 'application/json', json.dumps(tree).encode())

  def _send(self, status, kind, content):
    self._head(status, kind, len(content))
    self.wfile.write(content)

  def _head(self, status, kind, length):
    self.send_response(status)
    headers = {
      'Content-Type': kind,
      'Cache-Control': 'no-store',
      'Content-Security-Policy': self.server.policy,
      'Cross-Origin-Resource-Policy': 'same-origin',
      'Cross-Origin-Opener-Policy': 'same-origin',
      'Referrer-Policy': 'no-referrer',
      'X-Content-Type-Options': 'nosniff',
    }
    for name, value in headers.items():
      self.send_header(name, value)
    if length is not None:
      self.send_header('Content-Length', str(length))
    self.end_headers()

  def log_message(self, *_):
    """Nothing: the terminal is for what its user must know."""


def content_security_policy(page: str) -> str:
  """What a page may do: run its own script, and ask its own server; nothing from elsewhere."""

  def hashed(tag):
    parts = re.findall(rf'<{tag}>(.*?)</{tag}>', page, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(part.encode()).digest()) for part in parts)
    return ' '.join(f"'sha256-{digest.decode()}'" for digest in digests)

  return '; '.join(
    (
      "default-src 'none'",
      f'script-src {hashed("script")}',
      f'style-src {hashed("style")}',
      "img-src 'self' data: blob:",
      "connect-src 'self'",
      *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
  )


def serve(server: Server):
  """Answers until Ctrl-C, and returns when nothing is computed any more."""
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    thread.join()
  except KeyboardInterrupt:
    pass
  finally:
    server.answers.stop()
    server.shutdown()
    server.server_close()
