# Our own code on top of the packages: seconds to build, so it follows every change of the source.
ARG DEPS
FROM ${DEPS}
LABEL cambrian.image=worker
COPY code /usr/local/lib/cambrian/code
RUN /usr/local/lib/cambrian/venv/bin/python -m compileall -q /usr/local/lib/cambrian/code
