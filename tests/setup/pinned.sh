#!/bin/bash
# pinned.sh PATTERN: prints the newest file of the pinned root that fits the pattern, or nothing if there is none.
#
# The pinned root has archives of what tests need, of fixed versions: a MySQL server as mysql/mysql-*-rootfs.tar.xz, a cluster's
# programs as localkube/localkube-bin.tar.xz. It is $STILLFRAME_PINNED; unset: any folder beside the repository that has
# such a file. Where there is none, the same things are got from elsewhere.
set -euo pipefail
repo=$(cd "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../.." && pwd)
compgen -G "${STILLFRAME_PINNED:-$repo/../*}/$1" | sort -V | tail -1 || true
