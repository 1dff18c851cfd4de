# Serves a detector on the CPU: docs/serve.md says how to run it.
#
#   docker build --tag patch-svdd .
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
# The second is what newer versions of pip read for setuptools, which builds the package.
ENV PIP_CONSTRAINT=/build/requirements.txt \
    PIP_BUILD_CONSTRAINT=/build/requirements.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/patch-svdd
COPY requirements.txt pyproject.toml setup.cfg README.md LICENSE ./
COPY patch_svdd_jax patch_svdd_jax
COPY configs configs
# requirements.txt pins the tests' packages as well: as a constraint it brings none of them.
RUN /opt/patch-svdd/bin/pip install '.[serve]'

FROM python:3.11-slim-bookworm
# A number, for those who check that it is not that of root and have no names. In /cache lie compiled
# programs, which are used only where the folder belongs to who uses them.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin patch-svdd \
  && install --directory --owner 10001 --group 10001 --mode 0700 /cache
COPY --from=build /opt/patch-svdd /opt/patch-svdd
ENV PATH=/opt/patch-svdd/bin:$PATH \
    HOME=/tmp \
    XDG_CACHE_HOME=/cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
# Not by urllib, which would ask a proxy that the environment names.
HEALTHCHECK --start-period=180s --interval=30s --timeout=10s --retries=3 \
  CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=5); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["patch-svdd"]
CMD ["serve", "--model", "/model", "--host", "0.0.0.0"]
