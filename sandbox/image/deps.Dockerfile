# The packages that a worker needs, installed without a network from wheels that the host brought.
# The wheels stay in the first stage: the image holds the installed packages only, without what nobody needs at
# run time: C++ headers, torch's own tests and tools (but for the one that shares memory), pip.
ARG BASE
FROM ${BASE} AS installed
ARG PINS
LABEL cambrian.image=stage
COPY wheels /wheels
RUN python3 -m venv /usr/local/lib/cambrian/venv \
 && /usr/local/lib/cambrian/venv/bin/python -m pip install --no-index --find-links=/wheels --no-cache-dir ${PINS} \
 && /usr/local/lib/cambrian/venv/bin/python -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0], 'cambrian.pth').write_text('/usr/local/lib/cambrian/code')" \
 && cd /usr/local/lib/cambrian/venv/lib/python3.*/site-packages \
 && rm -rf torch/include torch/test torch/share pip pip-*.dist-info ../../../bin/pip* \
 && find torch/bin -type f ! -name torch_shm_manager -delete \
 && find torch -name '*.a' -delete \
 && find numpy sympy networkx mpmath -type d -name tests -prune -exec rm -rf {} + \
 && /usr/local/lib/cambrian/venv/bin/python -s -P -c "import torch, numpy, pydantic, yaml, safetensors.torch, torch.utils.benchmark; torch.nn.Linear(2, 2)(torch.ones(1, 2)).sum().backward()"

FROM ${BASE}
LABEL cambrian.image=deps
COPY --from=installed /usr/local/lib/cambrian/venv /usr/local/lib/cambrian/venv
# A name for user 1000 (libraries ask for it), and the mount point of the data. No program that takes another
# user's rights: nobody in a container has a use for one.
# /scratch is left out on purpose: a tmpfs over a folder of the image would inherit that folder's mode.
RUN grep -q '^[^:]*:[^:]*:1000:' /etc/passwd || echo 'cambrian:x:1000:1000::/scratch:/bin/false' >> /etc/passwd \
 ; mkdir -p /data \
 ; find / -xdev -type f -perm /6000 -exec chmod a-s {} +
