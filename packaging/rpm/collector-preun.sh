# $1 is 0 when the package goes, 1 when another version of it comes.
if [ "$1" -eq 0 ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now custody-collector.service || true
fi
