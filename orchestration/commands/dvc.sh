#!/bin/sh
# `dvc` of .venv: the DVC of its own environment. What a killed process left cut off stops DVC before any code of ours
# runs, so it is mended first (orchestration/pipeline/left_behind.py); a look at two files costs a millisecond.
here=$(dirname -- "$0")
damaged() {
  case $(tail -c 1 .dvc/tmp/rwlock 2>/dev/null || echo "}") in "}") ;; *) return 0 ;; esac
  [ -e dvc.lock ] && { [ ! -s dvc.lock ] || [ -n "$(tail -c 1 dvc.lock)" ]; }
}
if [ -d .dvc ] && damaged; then
  "$here/python" -m orchestration mend || exit
fi
exec "$here/../../.venv-dvc/bin/dvc" "$@"
