# pagewalk in an image. Three stages: `build` makes a virtual environment and compiles the page loops, `service` is what a server runs,
# `workspace` is one student's own machine (PrairieLearn workspaces and the like).
#
#     docker build --target service -t pagewalk .
#     docker build --target workspace -t pagewalk-workspace .
ARG PYTHON=python:3.11.7-slim-bookworm

FROM ${PYTHON} AS build
# Loops are compiled for any x86-64 processor: the image runs elsewhere than where it was built.
ENV NUMBA_CPU_NAME=generic \
    PAGEWALK_CACHE=/opt/pagewalk/cache \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY core ./core
COPY app ./app
COPY pagewalk ./pagewalk
RUN python -m venv /opt/pagewalk \
    && /opt/pagewalk/bin/pip install --no-cache-dir -c constraints.txt . \
    && /opt/pagewalk/bin/python -m core.warm \
    && /opt/pagewalk/bin/python -m pip uninstall -y pip setuptools \
    && chmod -R a+rX /opt/pagewalk

FROM ${PYTHON} AS base
ENV NUMBA_CPU_NAME=generic \
    PAGEWALK_CACHE=/opt/pagewalk/cache \
    PAGEWALK_LOG_LEVEL=info \
    PATH=/opt/pagewalk/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN groupadd --gid 1001 pagewalk \
    && useradd --uid 1001 --gid 1001 --create-home --home-dir /home/pagewalk pagewalk
COPY --from=build /opt/pagewalk /opt/pagewalk
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:%s%s/readyz' % (os.environ.get('PAGEWALK_PORT', '8000'), os.environ.get('PAGEWALK_ROOT_PATH', '')), timeout=2)"]

# One student, one container, one port, any uid, no network: whoever reaches the port is the student. What is to be kept is in $HOME.
FROM base AS workspace
RUN chmod 0777 /home/pagewalk
ENV HOME=/home/pagewalk
USER 1001:1001
WORKDIR /home/pagewalk
CMD ["sh", "-c", "exec pagewalk serve --host 0.0.0.0 --allow-anyone --data \"$HOME/.pagewalk\""]

FROM base AS service
RUN install -d -o 1001 -g 1001 -m 0750 /data
ENV PAGEWALK_DATA=/data \
    PAGEWALK_HOST=0.0.0.0
USER 1001:1001
WORKDIR /data
VOLUME ["/data"]
CMD ["pagewalk", "serve"]
