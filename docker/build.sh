#!/usr/bin/env bash
# Builds an image from the working tree with docker, podman or buildah, whichever is available, and prints its name.
#   docker/build.sh runtime|runtime-cuda|mlflow [flags of the builder, e.g. --build-arg TORCH_INDEX=URL]
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "$@" >&2; }

target=${1:-}
case $target in
  runtime) variant= ;;
  runtime-cuda) variant=-cuda ;;
  mlflow) variant=-mlflow ;;
  *) say "error: unknown target '$target'; choose runtime, runtime-cuda or mlflow"; exit 2 ;;
esac
shift

# Stages that the target does not need: Docker's legacy builder builds every stage above its target.
case $target in
  runtime) unused='cuda runtime-cuda mlflow-venv mlflow' ;;
  runtime-cuda) unused='cpu runtime mlflow-venv mlflow' ;;
  mlflow) unused='deps app cpu runtime cuda runtime-cuda' ;;
esac
dockerfile() {
  awk -v unused=" $unused " '/^FROM / { skip = index(unused, " " $NF " ") && $(NF - 1) == "AS" } !skip' docker/Dockerfile
}

if docker version >/dev/null 2>&1; then
  builder=docker
  # Older clients disable BuildKit by default; it is twice as fast, and skips stages that the target does not need.
  if DOCKER_BUILDKIT=1 docker build --help >/dev/null 2>&1; then export DOCKER_BUILDKIT=1; fi
elif command -v podman >/dev/null; then
  builder=podman
elif command -v buildah >/dev/null; then
  builder=buildah
else
  say "error: Docker Engine is unreachable, and neither podman nor buildah is installed; start or install one"
  exit 2
fi

# The name contains the commit, and `-dirty` if the files that the image is built from have uncommitted changes.
commit=$(git rev-parse --verify HEAD) || {
  say "error: no Git commit found, which the tag needs (a ZIP download has none); git init && git add --all && git commit"
  exit 2
}
changes=$(git status --porcelain -- docker src pyproject.toml README.md .dockerignore)
image=maskcast:${commit:0:12}${changes:+-dirty}$variant
lock=$(sha256sum docker/requirements.lock | cut -d' ' -f1)

say "building $image with $builder"
dockerfile | "$builder" build --file - --target "$target" --tag "$image" \
  --build-arg "GIT_SHA=$commit${changes:+-dirty}" --build-arg "LOCK_SHA256=$lock" "$@" . >&2

say "built $image. To push it and see the digest that pins it:"
remote=REGISTRY/$image
case $builder in
  docker) say "  docker tag $image $remote && docker push $remote"
          say "  docker inspect --format '{{index .RepoDigests 0}}' $remote" ;;
  *) say "  $builder push --digestfile /dev/stdout $image $remote" ;;
esac
echo "$image"
