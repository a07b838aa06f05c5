# $1 is 1 at the first installation and 2 at an upgrade.
if command -v systemd-sysusers >/dev/null 2>&1; then
    systemd-sysusers custody-agent.conf
elif ! getent passwd custody-agent >/dev/null; then
    useradd --system --user-group --no-create-home --home-dir /var/lib/custody-agent --shell /usr/sbin/nologin custody-agent
fi
if command -v systemd-tmpfiles >/dev/null 2>&1; then
    systemd-tmpfiles --create custody-agent.conf || true
fi
install -d -m 0700 -o custody-agent -g custody-agent /var/lib/custody-agent
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    if [ "$1" -ge 2 ]; then
        systemctl try-restart custody-agent.service || true
    fi
fi
