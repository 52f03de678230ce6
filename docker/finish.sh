# Finishes /opt/venv in a stage of the Dockerfile: a smaller image and faster starts.
set -eu
site=$(/opt/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# Tests and C++ headers are a fifth of the CPU image, and are not used there.
find "$site" -depth -type d \( -name test -o -name tests -o -path "$site/torch/include" \) -exec rm -r {} +
find "$site/torch/bin" -type f \( -iname '*test*' -o -name 'protoc*' \) -delete

# Bytecode cannot be written at run time, and without it every start takes seconds more. Templates that are not
# valid Python fail to compile, which is ignored.
/opt/venv/bin/python -m compileall -q -q -j 0 --invalidation-mode unchecked-hash "$site" || true

rm -f /opt/venv/.lock # uv's lock, which is world-writable
