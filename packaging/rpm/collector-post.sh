# $1 is 1 at the first installation and 2 at an upgrade.
if command -v systemd-sysusers >/dev/null 2>&1; then
    systemd-sysusers custody-collector.conf
elif ! getent passwd custody-collector >/dev/null; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/custody-collector --shell /usr/sbin/nologin custody-collector
fi
if command -v systemd-tmpfiles >/dev/null 2>&1; then
    systemd-tmpfiles --create custody-collector.conf || true
fi
install -d -m 0700 -o custody-collector -g custody-collector /var/lib/custody-collector
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if [ "$1" -ge 2 ]; then
        systemctl try-restart custody-collector.service || true
    fi
fi
