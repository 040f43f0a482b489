#!/usr/bin/env bash
# The environment that the starts are asked of: 11 GB, about a minute. Nothing is imported from it here.
#
#     scripts/engine_reference/environment.sh make DIRECTORY [LOCK]    install requirements.lock, or another lock file
#     scripts/engine_reference/environment.sh lock                     resolve requirements.in and alone.in again
#
# Needs Linux on x86-64, Python 3.11, gcc and nm; uv is taken where it is, else installed beside.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3.11}

uv() {
  if type -P uv >/dev/null; then
    command uv "$@"
  else
    "$tools/bin/uv" "$@"
  fi
}

if ! type -P uv >/dev/null; then
  tools=$(mktemp -d)
  trap 'rm -rf "$tools"' EXIT
  "$python" -m venv "$tools"
  "$tools/bin/pip" install -q uv
fi

case "${1:-}" in
  make)
    place=${2:?a directory for the environment}
    uv venv -q --clear -p "$python" "$place"
    uv pip install -q -p "$place" --no-deps -r "${3:-$here/requirements.lock}"
    ;;
  lock)
    {
      echo "# Made by scripts/engine_reference/environment.sh lock; installed without looking at dependencies."
      cd "$here"
      uv pip compile -q --no-header --python-version 3.11 requirements.in
      uv pip compile -q --no-header --python-version 3.11 --no-deps alone.in
    } >"$here/requirements.lock.new"
    mv "$here/requirements.lock.new" "$here/requirements.lock"
    ;;
  *)
    sed -n '2,8s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
