#!/bin/sh
# Installs Custody from this archive, where there is no package for the system.
#
#   ./install.sh                      programs, units, users, configuration under /; needs root
#   ./install.sh --prefix ~/.local    programs, pages and completions alone; needs nothing
#   ./install.sh --uninstall          takes away what it installed; configuration and state stay
#
# DESTDIR=… puts everything below another root and starts and makes nothing.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
prefix=/usr
action=install
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?--prefix needs a folder}; shift ;;
        --uninstall) action=uninstall ;;
        -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 64 ;;
    esac
    shift
done
root=${DESTDIR:-}
system=no
[ "$prefix" = /usr ] && system=yes
if [ "$system" = yes ] && [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
    echo "install.sh: needs root, or --prefix with a folder of your own" >&2
    exit 77
fi

# put FILE FOLDER MODE, or take it away again
put() {
    if [ "$action" = uninstall ]; then
        rm -f "$root$2/$(basename "$1")"
    else
        install -D -m "$3" "$1" "$root$2/$(basename "$1")"
    fi
}

for file in "$here"/bin/*; do put "$file" "$prefix/bin" 755; done
for file in "$here"/man/*.1; do put "$file" "$prefix/share/man/man1" 644; done
for file in "$here"/bash/*; do put "$file" "$prefix/share/bash-completion/completions" 644; done
for file in "$here"/zsh/*; do put "$file" "$prefix/share/zsh/site-functions" 644; done
for file in "$here"/fish/*; do put "$file" "$prefix/share/fish/vendor_completions.d" 644; done
[ "$system" = yes ] || exit 0

if [ "$action" = uninstall ] && [ -z "$root" ] && [ -d /run/systemd/system ]; then
    systemctl disable --now custody-agent.service custody-collector.service || true
fi
for file in "$here"/systemd/*.service; do put "$file" /usr/lib/systemd/system 644; done
for file in "$here"/sysusers.d/*; do put "$file" /usr/lib/sysusers.d 644; done
for file in "$here"/tmpfiles.d/*; do put "$file" /usr/lib/tmpfiles.d 644; done
if [ "$action" = install ]; then
    for file in "$here"/etc/*.yaml; do
        # What was edited stays.
        [ -e "$root/etc/custody/$(basename "$file")" ] || put "$file" /etc/custody 644
    done
fi
[ -z "$root" ] || exit 0

if [ "$action" = install ]; then
    for name in custody-agent custody-collector; do
        if command -v systemd-sysusers >/dev/null 2>&1; then
            systemd-sysusers "$name.conf"
        elif ! getent passwd "$name" >/dev/null; then
            useradd --system --user-group --no-create-home --home-dir "/var/lib/$name" --shell /usr/sbin/nologin "$name"
        fi
        install -d -m 0700 -o "$name" -g "$name" "/var/lib/$name"
    done
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
