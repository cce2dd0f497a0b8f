# The packages that a worker needs, installed without a network from wheels that the host brought.
# The wheels stay in the first stage: the image holds the installed packages only.
ARG BASE
FROM ${BASE} AS installed
ARG PINS
LABEL cambrian.image=stage
COPY wheels /wheels
RUN python3 -m venv /usr/local/lib/cambrian/venv \
 && /usr/local/lib/cambrian/venv/bin/python -m pip install --no-index --find-links=/wheels --no-cache-dir ${PINS} \
 && /usr/local/lib/cambrian/venv/bin/python -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0], 'cambrian.pth').write_text('/usr/local/lib/cambrian/code')"

FROM ${BASE}
LABEL cambrian.image=deps
COPY --from=installed /usr/local/lib/cambrian/venv /usr/local/lib/cambrian/venv
# A name for user 1000 (libraries ask for it), and the mount points: a new volume takes over their owner.
# /scratch is left out on purpose: a tmpfs over a folder of the image would inherit that folder's mode.
RUN grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || echo 'cambrian:x:1000:1000::/scratch:/bin/false' >> /etc/passwd \
 ; mkdir -p /job /data && chown 1000:1000 /job && chmod 0700 /job
