#!/bin/sh
# Installs one requirements file into /opt/venv, in a build stage: install.sh FILE
# A lock is whole, and installed with its hashes. What lies beside it as NAME.txt, and a model's own requirements.txt, need not
# have any.
set -eu
cd /build
if [ -f build-ca.crt ]; then export PIP_CERT=/build/build-ca.crt; fi
if [ -f pip.conf ]; then export PIP_CONFIG_FILE=/build/pip.conf; fi
# Wheels of the host's disk, where the build context brought some.
export PIP_FIND_LINKS=/build
pip="/opt/pip/bin/pip --python /opt/venv/bin/python install --quiet"
case $1 in
*/requirements.txt)
    # MLflow 2 brings the files of mlflow-skinny itself, and MLflow 3 installs its own release of it again.
    if grep -qiE '^ *mlflow *([]=<>~! [;]|$)' "$1"; then
        /opt/pip/bin/pip --python /opt/venv/bin/python uninstall --quiet --yes mlflow-skinny
    fi
    $pip -r "$1"
    # What serves the model is in the same environment.
    /opt/venv/bin/python -c 'import worker_image.server.lifecycle' || {
        echo "requirements.txt: its packages replaced one that the model server needs (above); ask for other versions" >&2
        exit 1
    }
    exit
    ;;
*.lock)
    $pip --require-hashes --only-binary=:all: --no-deps -r "$1"
    ;;
*)
    $pip --only-binary=:all: -r "$1"
    ;;
esac
# These packages ship their tests, which are a fifth of the image and are never imported; PyTorch also its C++ headers and the
# programs that test it. It looks for its torch_shm_manager when it is imported.
find /opt/venv -type d -name tests -prune -exec rm -rf {} +
find /opt/venv/lib/python*/site-packages/torch/bin -type f ! -name torch_shm_manager -delete 2>/dev/null || true
rm -rf /opt/venv/lib/python*/site-packages/torch/test /opt/venv/lib/python*/site-packages/torch/include
