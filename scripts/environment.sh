#!/bin/sh
# Builds the virtual environment in $1 from requirements.lock. Python 3.10 because Rasa 3.6 needs it.
set -eu
venv=$1

find_python() {
    for candidate in python3.10 "$HOME/.pyenv/shims/python3.10" python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 10))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    if [ -n "$python" ]; then
        echo "[1/3] environment with $($python --version)"
        "$python" -m venv "$venv"
        "$venv/bin/python" -m pip install -q --disable-pip-version-check "uv>=0.4"
    else
        echo "[1/3] no Python 3.10 here: uv fetches its own"
        python3 -m venv "$venv.uv"
        "$venv.uv/bin/python" -m pip install -q --disable-pip-version-check "uv>=0.4"
        "$venv.uv/bin/uv" venv -q --seed --python 3.10 "$venv"
        "$venv.uv/bin/uv" pip install -q --python "$venv/bin/python" "uv>=0.4"
        rm -rf "$venv.uv"
    fi
fi
echo "[2/3] packages of requirements.lock (about 900 MB once; uv keeps them for the next time)"
"$venv/bin/uv" pip install --compile-bytecode --python "$venv/bin/python" -r requirements.lock
echo "[3/3] environment ready"
