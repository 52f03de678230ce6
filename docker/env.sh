#!/usr/bin/env bash
# Writes new passwords and keys for the team's servers to docker/.env (or a given file), which Git ignores.
# `docker compose` reads it; so does `kubectl create secret generic mlflow-server --from-env-file=docker/.env`.
set -euo pipefail
file=${1:-$(dirname "$0")/.env}
if [ -e "$file" ]; then
  echo "error: $file already exists, and servers may use its passwords; remove it if none does" >&2
  exit 2
fi
secret() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
cat > "$file" <<END
POSTGRES_PASSWORD=$(secret)
AWS_ACCESS_KEY_ID=mlflow
AWS_SECRET_ACCESS_KEY=$(secret)
MLFLOW_AUTH_ADMIN_PASSWORD=$(secret)
MLFLOW_FLASK_SERVER_SECRET_KEY=$(secret)
END
echo "wrote $file; MLflow's administrator is admin, with the password MLFLOW_AUTH_ADMIN_PASSWORD" >&2
