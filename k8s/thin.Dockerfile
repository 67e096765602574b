# For the cluster tests: the code alone. The environment is the host's, mounted at the path it was made for
# (RCG_CLUSTER_MOUNTS of the test rig; `buildah build --volume` here).
ARG BASE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE}
ARG VENV
ENV PATH=${VENV}/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    PYTHONPATH=/opt/rcg HOME=/home/rcg
WORKDIR /opt/rcg
COPY flows flows
COPY components components
RUN python -m flows.image > code.json \
    && python -m compileall -q flows components \
    && install --directory --owner 1000 --group 1000 /home/rcg
WORKDIR /home/rcg
USER 1000:1000
