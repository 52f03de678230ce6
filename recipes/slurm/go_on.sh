#!/bin/bash
# Runs a command of a job: `go_on.sh maskcast train_masker ...` or `go_on.sh dvc repro`. Its exit code is 75 where a
# training was asked to end and left a checkpoint, also below DVC, which only writes it down.
#
# Cluster managers send signals to every process of a job. This script and DVC ignore them, and the training, which
# does not, ends after its step.
trap '' USR1 TERM
log=$(mktemp)
{ # a pipe, which waits for tee
  "$@" 2>&1 >&3 | tee "$log" >&2
  code=${PIPESTATUS[0]}
} 3>&1
if [ $code -ne 0 ] && grep -q 'exited with 75' "$log"; then code=75; fi
rm -f "$log"
exit $code
