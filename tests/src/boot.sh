#!/bin/bash
# boot.sh CHANGES: boots this machine's own system (its /, unchanged) with systemd as process 1, in namespaces of its own.
#
# What the booted system changes goes to CHANGES/upper and stays, so that a second boot is a reboot; CHANGES must lie on a
# file system of its own (an overlay does not take changes that lie below what it covers). CHANGES/leader holds the pid of the
# systemd that runs; the script ends with it, and shuts it down when it is told to end. Needs root, a shell, and util-linux.
set -uo pipefail

# ---- inside the new namespaces: put the file tree together and become systemd
if [ "${1:-}" = --inside ]; then
    set -e
    changes=$2
    mount --make-rprivate /
    root=$changes/root
    mount -t overlay -o "lowerdir=/,upperdir=$changes/upper,workdir=$changes/work" overlay "$root"
    mount -t proc proc "$root/proc"
    mount -t sysfs -o ro sysfs "$root/sys"
    mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
    for node in null zero full random urandom tty; do cp -a "/dev/$node" "$root/dev/"; done
    mkdir "$root"/dev/{pts,shm,mqueue}
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    ln -s /proc/self/fd/0 "$root/dev/stdin"
    ln -s /proc/self/fd/1 "$root/dev/stdout"
    ln -s /proc/self/fd/2 "$root/dev/stderr"
    touch "$root/dev/console"
    mount --bind /dev/null "$root/dev/console"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
    else
        mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
        mkdir "$root"/sys/fs/cgroup/{unified,systemd}
        mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
        mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
        for controller in memory pids cpu cpuacct; do
            [ -d "/sys/fs/cgroup/$controller" ] || continue
            mkdir "$root/sys/fs/cgroup/$controller"
            mount -t cgroup -o "$controller" cgroup "$root/sys/fs/cgroup/$controller"
        done
    fi
    ip link set lo up
    hostname booted
    mkdir -p "$root/mnt"
    cd "$root"
    pivot_root . mnt
    umount --lazy /mnt
    # systemd leaves this out in a container, and LoadCredential= needs it.
    mount --make-rshared /
    exec env -i container=custody-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --system --show-status=0 </dev/null
fi

# ---- outside: a control group, the namespaces, and the wait for the end
changes=$(realpath "$1")
mkdir -p "$changes"/{upper,work,root}
chmod 755 "$changes/upper"
rm -f "$changes/leader"
name=custody-boot-$$
groups=()
for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/{unified,systemd,memory,pids,cpu,cpuacct}; do
    [ -e "$hierarchy/cgroup.procs" ] && groups+=("$hierarchy/$name")
done
for group in "${groups[@]}"; do mkdir -p "$group" || exit 3; done

leader=
tidy() {
    # SIGRTMIN+4: power off.
    [ -n "$leader" ] && kill -s RTMIN+4 "$leader" 2>/dev/null
    for _ in $(seq 300); do kill -0 "$outer" 2>/dev/null || break; sleep 0.1; done
    kill -KILL "$outer" 2>/dev/null
    wait "$outer" 2>/dev/null
    for group in "${groups[@]}"; do
        for _ in 1 2 3 4 5; do
            [ -d "$group" ] || break
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.2
        done
    done
    rm -f "$changes/leader"
}
trap tidy EXIT
trap 'exit 0' INT TERM HUP

(
    for group in "${groups[@]}"; do echo "$BASHPID" >"$group/cgroup.procs" || exit 3; done
    exec setpriv --pdeathsig KILL unshare --fork --kill-child --pid --mount --uts --ipc --net --cgroup \
        "$BASH" "$0" --inside "$changes"
) </dev/null &
outer=$!

for _ in $(seq 1200); do
    kill -0 "$outer" 2>/dev/null || { wait "$outer"; echo "boot.sh: it ended while it booted"; exit 3; }
    leader=$(pgrep -P "$outer" -x systemd)
    if [ -n "$leader" ]; then
        case $(nsenter -t "$leader" -a systemctl is-system-running 2>/dev/null) in
            running | degraded) echo "$leader" >"$changes/leader"; break ;;
        esac
    fi
    sleep 0.05
done
[ -e "$changes/leader" ] || { echo "boot.sh: not up within a minute"; exit 4; }
wait "$outer"
