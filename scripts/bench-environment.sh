#!/bin/sh
# Builds the environment in $1 for the peers of `make bench-nlu`, with Python and uv of the product's environment in $2,
# so that nothing the benchmark needs enters the product. A peer that cannot be installed is left out; the report says so.
set -u
venv=$1 product=$2
uv="$product/bin/uv"

# uv writes a .gitignore of its own into the environment.
[ -x "$venv/bin/python" ] || "$uv" venv -q --python "$product/bin/python" "$venv" || exit 1
missing=""
add() { "$uv" pip install -q --python "$venv/bin/python" "$@" || missing="$missing $1"; }
# The newest releases on Python 3.10. fasttext-wheel needs no compiler, but NumPy 1; cpca needs the pkg_resources of older setuptools.
add scikit-learn==1.7.2 "numpy<2"
add jieba==0.42.1
add fasttext-wheel==0.9.2 "numpy<2"
add jionlp==1.5.31 "numpy<2"
add cpca==0.5.5 "setuptools<81" "numpy<2"
[ -z "$missing" ] || echo "NOT INSTALLED:$missing — the benchmark will say so" >&2
exit 0
