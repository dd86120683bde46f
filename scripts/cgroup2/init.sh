#!/bin/busybox sh
# First process of the virtual machine of scripts/cgroup2.sh: loads modules, puts the host's files below a layer in
# memory, and goes on in there. Whatever fails switches the machine off.
b=/bin/busybox
. /guest.env
fail() {
    echo "cgroup2: $1"
    $b poweroff -f
}
$b mount -t proc proc /proc && $b mount -t devtmpfs dev /dev || fail "cannot mount /proc and /dev"
for module in $($b cat /modules/order); do
    $b insmod "/modules/$module" || fail "cannot load $module"
done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000 host /lower || fail "cannot mount the host's files"
$b mount -t tmpfs -o size=80% tmpfs /upper && $b mkdir /upper/data /upper/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /new || fail "cannot mount the layer"
for dir in proc dev sys tmp run; do $b mkdir -p /new/$dir; done
$b mount --move /dev /new/dev
$b mount -t proc proc /new/proc
$b mount -t sysfs sysfs /new/sys
# What is tried may itself lie below /tmp, and is in memory all the same.
case "$REPO $HERDER $MODULES" in
/tmp/* | *" /tmp/"*) ;;
*) $b mount -t tmpfs -o mode=1777 tmpfs /new/tmp ;;
esac
$b mount -t tmpfs tmpfs /new/run
$b umount /proc
# A shell that waits also collects processes whose parents are gone, as the first one has to.
exec $b switch_root /new /bin/sh -c "setsid /bin/bash $REPO/scripts/cgroup2/guest.sh; busybox poweroff -f"
