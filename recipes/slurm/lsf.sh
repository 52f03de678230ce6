#!/bin/bash
# LSF: bsub < recipes/slurm/lsf.sh, with the command in MASKCAST_COMMAND
#BSUB -J maskcast
#BSUB -W 04:00
#BSUB -wa USR1 -wt 3
#BSUB -Q 75
#BSUB -r
#BSUB -n 8
# SIGUSR1 comes 3 minutes before the time is up; -Q 75 puts a job of that exit code back into the queue.
trap '' USR1 TERM
read -ra command <<< "${MASKCAST_COMMAND:-dvc repro}"
bash recipes/slurm/go_on.sh "${command[@]}"
exit $?
