#!/bin/sh
# Starts the systemd of a Debian root as the first process of its own machine: processes, mounts, IPC, host name and
# control groups are its own, the network is shared. Run it by `unshare --fork --pid --mount --ipc --uts`, as root.
# Usage: boot.sh ROOT NAME; NAME is that of its control groups, which whoever started it removes afterwards.
set -eu
root=$1 name=$2
if [ "${3:-}" != inside ]; then
  # Into a group of its own in every hierarchy that there is (a cpuset without processors takes nobody).
  for procs in /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/cgroup.procs; do
    [ -e "$procs" ] || continue
    case $procs in */cpuset/*) continue ;; esac
    mkdir -p "${procs%/*}/$name"
    echo 0 >"${procs%/*}/$name/cgroup.procs"
  done
  exec unshare --cgroup "$0" "$root" "$name" inside
fi
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# Settings of the kernel belong to the machine outside.
mount --bind -o ro "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sys "$root/sys"
mount -t tmpfs -o mode=755 cgroups "$root/sys/fs/cgroup"
while read -r _ place type options _; do
  case $place in
    /sys/fs/cgroup/*) mkdir -p "$root$place" ;;
    /sys/fs/cgroup) ;;
    *) continue ;;
  esac
  case $type in
    cgroup) mount -t cgroup -o "${options#rw,relatime,}" cgroup "$root$place" ;;
    cgroup2) mount -t cgroup2 cgroup2 "$root$place" ;;
  esac
done </proc/mounts
mount -t tmpfs -o mode=755 devices "$root/dev"
for one in null zero full random urandom tty; do
  : >"$root/dev/$one"
  mount --bind "/dev/$one" "$root/dev/$one"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for place in dev/shm run tmp; do mount -t tmpfs -o mode=755 tmpfs "$root/$place"; done
chmod 1777 "$root/dev/shm" "$root/tmp"
cd "$root"
mkdir -p outside
pivot_root . outside
umount -l /outside
# As on any machine: what systemd mounts for a unit (credentials) is to be seen by it.
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /sbin/init
