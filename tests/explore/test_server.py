"""Bad requests to --mode=explore get a sentence, and strangers nothing."""

import io
import json
import random
import signal
import socket

import numpy as np
import pytest
from PIL import Image

from gdm_jax import main
from gdm_jax.explore import pictures
from gdm_jax.explore.request import RequestError
from tests.explore.client import request
from tests.support import runs

ABSURD = (
  *(None, True, -1, 1.5, 1e300, -0.5, 10**25, 2**32, 2**31, '', 'x', '\ud800', '\0', 'a' * 200),
  *([], [[]], {}, [0, 0, 1, 2], [1, 2], [9], ['0'], {'a': 1}, {'9' * 12: 1}, {'0': 'x'}, {'0': 99}),
)
"""Values that no field takes."""
RAW = (
  *(b'', b'{', b'[]', b'null', b'1', b'"x"', b'\xff\xfe', b'{"a":NaN}', b'{"a":Infinity}'),
  *(b'[' * 5000, b'{"a":' * 5000, b'9' * 5000, b'{"guidance":1e999}', b'\0' * 9),
)


def bad_request(dice):
  """A request with one thing wrong: a field that is absurd or missing, or the body itself."""
  match dice.randrange(6):
    case 0:
      return dice.choice(RAW)
    case 1:
      wanted = request()
      del wanted[dice.choice([*wanted])]
    case 2:
      wanted = request()
      wanted['groups'][dice.randrange(4)][dice.choice(('from', 'to', 'at'))] = dice.choice(
        [value for value in ABSURD if value is not True and value != 2**31]
      )
    case 3:
      known = {'pixels': 'AAAA' * 21 + 'AA==', 'groups': [0], 'variants': 1, 'seed': 0}
      known[dice.choice([*known])] = dice.choice(
        [value for value in ABSURD if value not in (2**31, True, [1, 2])]
      )
      wanted = request(known=known)
    case _:
      field = dice.choice([key for key in request() if key not in ('known', 'tab', 'order')])
      good = {'guidance': (1.5,), 'label': (-1,), 'draft': (True,)}
      bad = [value for value in ABSURD if value not in good.get(field, ()) or value is None]
      wanted = request(**{field: dice.choice(bad)})
  return json.dumps(wanted).encode()


def test_bad_requests_are_answered_by_a_sentence(labelled):
  """200 of them; the guidance of 1.5 without a label is one of those."""
  for seed in range(200):
    body = bad_request(random.Random(seed))
    path = ('/generate', '/save')[seed % 2]
    answer = labelled.client.ask('POST', path, body)
    assert 400 <= answer.status < 500, (seed, body[:300], answer.body[:200])
    assert list(answer.json) == ['error'], seed
    assert 0 < len(answer.json['error']) < 400
    assert '\n' not in answer.json['error']
    assert 'Traceback' not in answer.json['error']
  assert labelled.client.generate()[-1]['kind'] == 'done'


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'order': [0, 0, 1, 2]}, 'sampling.order = (0, 0, 1, 2)'),
    ({'steps': 3}, 'sampling.steps = (3,): steps = 3 are fewer than the 4 intervals'),
    ({'solver': 'rk9'}, "solver 'rk9' is unknown"),
    ({'strategy': 'x'}, 'strategy = "x": there are main'),
    ({'label': 10}, 'label = 10: this model has 10 classes'),
    ({'guidance': 2}, 'guidance = 2 needs a label'),
    ({'ranks': {'0': 1}}, 'ranks: this model has no frequency basis'),
    ({'groups': []}, 'groups: 0 of them, and main has 4'),
    ({'groups': [{'from': 'abc', 'to': 0, 'at': 0}] * 4}, "picture 'abc' is not here"),
    ({'groups': [{'from': 2**32, 'to': 0, 'at': 0}] * 4}, 'must be a seed of 0 to 2**32 - 1'),
    ({'groups': [{'from': 0, 'to': 0, 'at': 1.01}] * 4}, 'at = 1.01 must be a number, 0 to 1'),
  ],
)
def test_what_the_model_cannot_do_is_said(changes, said, labelled):
  answer = labelled.client.ask('POST', '/generate', json.dumps(request(**changes)).encode())
  assert answer.status == 400
  assert said in answer.json['error']


def test_only_trained_orders(bands):
  answer = bands.client.ask('POST', '/generate', json.dumps(request(order=[1, 0, 2, 3])).encode())
  assert answer.status == 400
  assert 'the strategy was trained on (0, 1, 2, 3) alone' in answer.json['error']
  answer = bands.client.ask('POST', '/generate', json.dumps(request(ranks={'64': 1})).encode())
  assert answer.json['error'] == 'ranks: 64: there are 0 to 63'


@pytest.mark.parametrize(
  'headers',
  [
    {'X_Token': None},
    {'X_Token': 'wrong'},
    {'X_Token': 'ä'},
    {'Host': None},
    {'Host': 'evil.example'},
    {'Host': 'evil.example:80'},
    {'Host': '[::1'},
    {'Origin': 'http://evil.example'},
    {'Origin': 'null'},
    {'Origin': 'http://127.0.0.1:1'},
  ],
)
def test_strangers_get_nothing(headers, labelled):
  for method, path in (
    ('GET', '/'),
    ('GET', '/model'),
    ('POST', '/generate'),
    ('POST', '/picture'),
  ):
    body = json.dumps(request()).encode() if method == 'POST' else None
    answer = labelled.client.ask(method, path, body, **headers)
    assert answer.status == 403
    assert list(answer.json) == ['error']


def test_the_page_comes_with_its_token_alone(labelled):
  client = labelled.client
  assert client.ask('GET', '/', X_Token=None).status == 403
  page = client.ask('GET', f'/?token={client.token}', X_Token=None)
  assert page.status == 200
  policy = page.headers['Content-Security-Policy']
  assert "default-src 'none'" in policy
  assert 'unsafe' not in policy
  assert policy.count('sha256-') == 2
  assert b'http://' not in page.body.replace(b'http://www.w3.org/2000/svg', b'')
  assert b'https://' not in page.body
  same = {'Origin': f'http://{client.host}', 'Host': client.host}
  assert client.ask('GET', '/model', **same).status == 200
  assert client.ask('GET', '/model', Host='localhost:9000').status == 200  # a port forwarded


@pytest.mark.parametrize(
  ('method', 'path', 'headers', 'status'),
  [
    ('GET', '/nowhere', {}, 404),
    ('GET', '/generate', {}, 404),
    ('POST', '/', {}, 404),
    ('PUT', '/generate', {}, 405),
    ('HEAD', '/', {}, 405),
    ('POST', '/generate', {'Content_Length': None}, 411),
    ('POST', '/generate', {'Content_Length': '-1'}, 411),
    ('POST', '/generate', {'Content_Length': '1e3'}, 411),
    ('POST', '/generate', {'Content_Length': '9' * 30}, 413),
    ('POST', '/generate', {'Content_Length': '1000000'}, 413),
    ('POST', '/picture', {'Content_Length': str(2**40)}, 413),
  ],
)
def test_what_is_no_request(method, path, headers, status, labelled):
  body = None if 'Content_Length' in headers else b'{}' if method == 'POST' else None
  answer = labelled.client.ask(method, path, body, **headers)
  assert answer.status == status
  assert method == 'HEAD' or list(answer.json) == ['error']


@pytest.mark.parametrize(
  'line', [b'nonsense\r\n\r\n', b'GET / HTTP/9.9\r\n\r\n', b'\r\n', b'\0\1\2']
)
def test_what_is_no_http(line, labelled):
  host, port = labelled.client.host.split(':')
  with socket.create_connection((host, int(port)), timeout=10) as connection:
    connection.sendall(line)
    connection.shutdown(socket.SHUT_WR)
    assert b'Traceback' not in connection.recv(10_000)
  assert labelled.client.ask('GET', '/model').status == 200


@pytest.mark.parametrize('content', [b'', b'no picture', b'\x89PNG\r\n\x1a\n', b'GIF89a'])
def test_what_is_no_picture(content, labelled):
  answer = labelled.client.ask('POST', '/picture', content, X_Name='a%0Ab.png')
  assert answer.status == 400
  assert answer.json['error'].startswith('cannot read a_b.png (')
  assert '/tmp' not in answer.json['error']


def test_a_picture_of_too_many_pixels(monkeypatch):
  monkeypatch.setattr(pictures, 'MAX_PIXELS', 100)
  file = io.BytesIO()
  Image.fromarray(np.zeros((11, 10), np.uint8)).save(file, 'png')
  with pytest.raises(RequestError, match=r'x\.png is 10 x 11: at most 100 pixels'):
    pictures.Pictures((8, 8, 1)).add('x.png', file.getvalue())


def arguments(served, *overrides):
  return [*(a for a in served.arguments if 'port' not in a), *overrides]


def test_a_port_that_is_taken(labelled, capsys):
  port = labelled.server.port
  assert main.main(['', *arguments(labelled, f'--config.explore.port={port}')]) == 2
  error = capsys.readouterr().err.splitlines()
  assert len(error) == 1
  assert error[0].startswith(f'error: explore.host = 127.0.0.1, explore.port = {port}: ')
  assert '--config.explore.port=0' in error[0]


@pytest.mark.parametrize(
  ('override', 'said'),
  [
    ('--config.explore.port=70000', 'explore.port = 70000'),
    ('--config.explore.port=-1', 'explore.port = -1'),
    ('--config.explore.host=192.0.2.1', 'explore.host = 192.0.2.1'),
    ('--config.explore.draft_solver=rk9', "explore.draft_solver = 'rk9'"),
    ('--config.explore.variants=0', 'explore.variants = 0 must be positive'),
    ('--config.explore.variants=17', 'explore.variants = 17 must be at most 16'),
    ('--config.checkpoint.load=77', 'checkpoint.load = 77'),
  ],
)
def test_what_cannot_be_served(override, said, labelled, capsys):
  assert main.main(['', *arguments(labelled, '--config.explore.port=0', override)]) == 2
  error = capsys.readouterr().err
  assert said in error
  assert 'Traceback' not in error


def test_points_are_no_pictures(tmp_path, capsys):
  args = runs.arguments(tmp_path, '--mode=explore', config='toy_2d')
  assert main.main(['', *args]) == 2
  assert 'shows pictures' in capsys.readouterr().err


def test_ctrl_c_ends_it(labelled):
  """Also where a shell's & has left SIGINT ignored, as here."""
  args = arguments(labelled, '--config.explore.port=0')
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the process inherits
  with runs.started(args, stderr=-1, text=True) as process:
    signal.signal(signal.SIGINT, before)
    for line in process.stderr:
      if 'Ctrl-C ends it' in line:
        break
    process.send_signal(signal.SIGINT)
    assert process.wait(60) in (0, 130)
    assert 'Traceback' not in process.stderr.read()
