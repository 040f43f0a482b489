#!/usr/bin/env bash
# HAProxy of the distribution, unpacked and not installed, for tests/acceptance/test_emit_weighing.py: 5 MB.
#
#     scripts/load_test/haproxy.sh DIRECTORY     makes DIRECTORY/haproxy
#
# Needs Debian or Ubuntu with its package index (apt-get).
set -euo pipefail
place=${1:?a directory for HAProxy}
mkdir -p "$place/packages"
place=$(cd "$place" && pwd)
read -ra packages <<<"$(apt-get install --simulate --no-install-recommends haproxy | awk '/^Inst/ { printf "%s ", $2 }')"
if [ "${#packages[@]}" -eq 0 ]; then
  ln -sf "$(command -v haproxy)" "$place/haproxy" # it is installed
  exit
fi
(cd "$place/packages" && apt-get download -q "${packages[@]}")
for package in "$place"/packages/*.deb; do
  dpkg -x "$package" "$place/root"
done
libraries=$(dirname "$(find "$place/root" -name 'liblua5*.so.0' | head -n 1)")
cat >"$place/haproxy" <<END
#!/bin/sh
LD_LIBRARY_PATH=$libraries exec $place/root/usr/sbin/haproxy "\$@"
END
chmod +x "$place/haproxy"
