#!/bin/sh
# Makes the image `cambrian-base` from Debian packages, for machines that reach a Debian mirror (or a local
# one) but no registry of images. Needs mmdebstrap and a Docker engine; the Python is Debian's.
#
#   sandbox/image/debian-base.sh [SUITE] [MIRROR]      (default: bookworm, mmdebstrap's own mirror)
#   sandbox/image/debian-base.sh --tar FILE            (imports a root file system made before)
set -eu

tag=cambrian-base:latest
if [ "${1:-}" = --tar ]; then
    docker import --change 'LABEL cambrian.image=base' "${2:?--tar needs a file}" "$tag"
    exit
fi
suite=${1:-bookworm}
shift $(($# > 0 ? 1 : 0))
command -v mmdebstrap >/dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
mmdebstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$suite" - "$@" |
    docker import --change 'LABEL cambrian.image=base' - "$tag"
