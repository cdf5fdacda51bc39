#!/bin/sh
# What only the tests need: Redis, PostgreSQL, a browser with Chinese fonts. Installed through apt where we are root;
# elsewhere the tests that need them say that they were skipped.
set -u
missing=""
command -v redis-server >/dev/null || missing="$missing redis-server"
[ -n "$(ls /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] || command -v postgres >/dev/null || missing="$missing postgresql"
command -v chromium >/dev/null || missing="$missing chromium"
fc-list :lang=zh 2>/dev/null | grep -q . || missing="$missing fonts-noto-cjk"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "installing for the tests:$missing"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null && exit 0
fi
echo "NOT INSTALLED:$missing — the tests that need them will be skipped" >&2
exit 0
