#!/bin/bash
# private-journald.sh STATE_DIR: runs a systemd-journald of its own, in mount and process namespaces
# of its own, and then the commands that arrive on standard input, in the same namespaces. Its
# journal stands in STATE_DIR and outlives it. Everything else ends with this script. Needs root,
# util-linux and systemd's journald; the host's own journal is not touched. What its journald says of
# itself (that it could not write an entry, say) stands in STATE_DIR/journald.log.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
  exec setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child \
    --mount-proc bash "$0" --inside "$(realpath -m "$1")"
fi
state=$2
daemon=/lib/systemd/systemd-journald
mkdir -p "$state" /var/log/journal
[ -s "$state/.machine-id" ] || tr -d - </proc/sys/kernel/random/uuid >"$state/.machine-id"

# journald finds its sockets, settings and machine id at fixed paths: they are covered by ours.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal /run/dev/pts /run/dev/shm
mount --bind "$state" /var/log/journal
for node in null zero full random urandom tty ptmx; do cp -a "/dev/$node" /run/dev/; done
ln -s /proc/self/fd /run/dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s "fd/${number%:*}" "/run/dev/${number#*:}"; done
mount --bind /dev/pts /run/dev/pts
mount --bind /dev/shm /run/dev/shm
ln -s /run/systemd/journal/dev-log /run/dev/log
mount --rbind /run/dev /dev
mount --bind "$state/.machine-id" /etc/machine-id
mkdir -p "/var/log/journal/$(cat /etc/machine-id)"
# Audit= empty: the host's audit stream is not asked for. The rate limit would drop what tests write.
printf '[Journal]\nStorage=persistent\nReadKMsg=no\nAudit=\nRateLimitIntervalSec=0\nForwardToSyslog=no\nMaxLevelConsole=emerg\n%s\n' \
  "${JOURNALD_SETTINGS:-}" >/run/journald.conf
mount --bind /run/journald.conf /etc/systemd/journald.conf
touch /run/systemd/journal/flushed

start() {
  SYSTEMD_LOG_TARGET=console "$daemon" 2>>"$state/journald.log" &
  echo $! >/run/journald.pid
  for _ in $(seq 500); do
    if [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/dev-log ] &&
      [ -S /run/systemd/journal/stdout ] && journalctl --sync 2>/dev/null; then return; fi
    sleep 0.01
  done
  echo "journald does not answer" >&2
  exit 1
}
start
echo ready
while IFS= read -r line; do
  eval "$line" </dev/null && echo "done 0" || echo "done $?"
done
