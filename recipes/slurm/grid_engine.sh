#!/bin/bash
# Grid Engine: qsub recipes/slurm/grid_engine.sh dvc repro
#$ -N maskcast
#$ -cwd
#$ -S /bin/bash
#$ -notify
#$ -l s_rt=03:57:00,h_rt=04:00:00
#$ -r y
# SIGUSR1 comes at s_rt, and with -notify before a suspension.
trap '' USR1 TERM
bash recipes/slurm/go_on.sh "$@"
code=$?
if [ $code -eq 75 ]; then
    exit 99 # Grid Engine's code for: put the job back into the queue
fi
exit $code
