# For the cluster tests: the code alone. The environment is the host's, mounted at the path it was made for
# (RCG_CLUSTER_MOUNTS of the test rig; `buildah build --volume` here).
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}
ARG VENV
ENV PATH=/opt/rcg/bin:${VENV}/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/rcg HOME=/home/rcg
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends git openssh-client \
    && rm -rf /var/lib/apt/lists/* \
    && /usr/sbin/useradd --uid 1000 --create-home rcg
WORKDIR /opt/rcg
COPY flows flows
COPY components components
COPY k8s/base/rayjob.yaml k8s/base/rayjob.yaml
COPY k8s/ray bin/ray
RUN python -m flows.executors.image > code.json \
    && python -m compileall -q flows components
WORKDIR /home/rcg
USER 1000:1000
