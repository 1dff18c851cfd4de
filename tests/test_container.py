"""The container's files claim what they should: no privileges, read-only, guarded changes."""

import pathlib
import re

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope='module')
def services():
  return yaml.safe_load((ROOT / 'compose.yaml').read_text('utf-8'))['services']


@pytest.mark.parametrize('name', ['serve', 'proxy'])
def test_nothing_has_privileges_or_writes_to_its_file_system(services, name):
  service = services[name]
  assert service['read_only'] is True
  assert service['cap_drop'] == ['ALL']
  assert service['security_opt'] == ['no-new-privileges:true']
  assert service['mem_limit']
  assert service['pids_limit']
  assert service['tmpfs'].startswith('/tmp:')


def test_only_the_proxy_is_reached_from_outside(services):
  assert 'ports' not in services['serve']
  assert services['serve']['networks'] == ['inside']
  (model,) = (each for each in services['serve']['volumes'] if isinstance(each, dict))
  assert (model['target'], model['read_only']) == ('/model', True)


def test_the_image_runs_as_a_user_and_says_whether_it_is_well():
  text = (ROOT / 'Dockerfile').read_text('utf-8')
  assert re.search(r'^USER 10001:10001$', text, re.MULTILINE)
  assert re.search(r'^HEALTHCHECK .*\\\n  CMD \["python", "-c"', text, re.MULTILINE)
  assert "'/health'" in text
  assert 'ENTRYPOINT ["patch-svdd"]' in text


def test_the_proxy_asks_for_another_login_before_changes():
  text = (ROOT / 'docker/nginx.conf').read_text('utf-8')
  everything = text[text.index('location / {') :]
  assert re.search(
    r'limit_except GET \{\s+auth_basic .*\s+auth_basic_user_file \S+changers;', everything
  )
  assert 'listen 8443 ssl' in text


def test_what_is_copied_into_the_image_is_there():
  ignored = (ROOT / '.dockerignore').read_text('utf-8').splitlines()
  kept = [line[1:] for line in ignored if line.startswith('!')]
  copied = re.findall(
    r'^COPY (?!--)(.+) \S+$', (ROOT / 'Dockerfile').read_text('utf-8'), re.MULTILINE
  )
  for name in ' '.join(copied).split():
    assert (ROOT / name).exists()
    assert name in kept
