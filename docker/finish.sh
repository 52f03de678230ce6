# Finishes /opt/venv in a stage of the Dockerfile: less weight and quicker starts.
set -eu
site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Tests and C++ headers are a fifth of the CPU image, and nothing there runs or compiles them.
find "$site" -depth -type d \( -name test -o -name tests -o -path "$site/torch/include" \) -exec rm -r {} +
find "$site/torch/bin" -type f \( -iname '*test*' -o -name 'protoc*' \) -delete

# Nobody can write bytecode later, and without it every start takes seconds more. Templates that are no valid
# Python fail to compile: never mind.
/opt/venv/bin/python -m compileall -q -q -j 0 --invalidation-mode unchecked-hash "$site" || true

rm -f /opt/venv/.lock # uv's, and everybody may write to it
