#!/usr/bin/env bash
# cgroup2.sh [BINARY [TEST-BINARY...]]: boots Debian's kernel in a virtual machine where only version 2 of control
# groups is mounted, and runs scripts/cgroup2/guest.sh in there, by default with what is built first. The machine sees
# this one's files; what it writes is in its memory and gone afterwards. All that it prints is in target/cgroup2/log, too.
set -euo pipefail
cd "$(dirname "$0")/.."

repo=$PWD
dir=${CARGO_TARGET_DIR:-$repo/target}/cgroup2
# The longest that all of it may take; the machine is emulated.
patience=${CGROUP2_PATIENCE:-3600}
# What the machine needs before it can see this one's files, and its network card.
modules=(virtio_pci 9pnet_virtio 9p overlay virtio_net)

# Downloads and unpacks the kernel, once.
fetch_kernel() {
    [ -e "$dir/kernel/ready" ] && return
    rm -rf "$dir/kernel"
    mkdir -p "$dir/kernel"
    (
        cd "$dir/kernel"
        package=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
        if [ -z "$package" ]; then
            echo "cgroup2: apt knows no linux-image-amd64; run apt-get update" >&2
            exit 1
        fi
        echo "cgroup2: downloading $package"
        apt-get --quiet --quiet -o APT::Sandbox::User=root download "$package"
        dpkg-deb --extract ./*.deb .
        rm ./*.deb
        mv boot/vmlinuz-* vmlinuz
        busybox depmod -b "$PWD" "$(ls lib/modules)"
        touch ready
    )
}

# Prints a module's file and those of all that it needs, those first.
files_of() {
    local file needed
    file=$(awk -F: -v name="/$1.ko" 'substr($1, length($1) - length(name) + 1) == name { print $1; exit }' "$2")
    for needed in $(awk -F: -v file="$file" '$1 == file { print $2 }' "$2"); do
        files_of "$(basename "$needed" .ko)" "$2"
    done
    echo "$file"
}

# A first file system in memory that finds the real one.
make_initramfs() {
    local root=$dir/initramfs release
    release=$(ls "$dir/kernel/lib/modules")
    rm -rf "$root"
    mkdir -p "$root"/{bin,proc,dev,lower,upper,new,modules}
    cp "$(command -v busybox)" "$root/bin/busybox"
    local from=$dir/kernel/lib/modules/$release name file
    for name in "${modules[@]}"; do files_of "$name" "$from/modules.dep"; done | awk '!seen[$0]++' |
        while read -r file; do
            cp "$from/$file" "$root/modules/"
            basename "$file" >>"$root/modules/order"
        done
    cat >"$root/guest.env" <<END
export REPO='$repo' HERDER='$binary' MODULES='$dir/kernel/lib/modules' TESTS='$tests'
END
    cp scripts/cgroup2/init.sh "$root/init"
    chmod +x "$root/init"
    (cd "$root" && find . | busybox cpio -o -H newc | gzip -1) >"$dir/initramfs.gz"
}

if [ $# = 0 ]; then
    cargo=${CARGO:-cargo}
    "$cargo" build --quiet --bin herder
    built=$("$cargo" test --quiet --no-run --test drivers --test e2e --message-format=json)
    mapfile -t files < <(jq -r 'select(.profile.test? and .executable?) | .executable' <<<"$built")
    set -- "${CARGO_TARGET_DIR:-target}/debug/herder" "${files[@]}"
fi
binary=$(realpath "$1")
shift
tests=
for file; do tests+="$(realpath "$file") "; done

mkdir -p "$dir"
fetch_kernel
make_initramfs

# Emulated unless asked otherwise: a /dev/kvm inside a virtual machine may be there and not work.
accel=${CGROUP2_ACCEL:-tcg,thread=multi}
echo "cgroup2: booting with -accel $accel"
timeout --foreground "$patience" qemu-system-x86_64 -accel "$accel" -cpu max -smp 2 -m "${CGROUP2_MEMORY:-4096}" \
    -kernel "$dir/kernel/vmlinuz" -initrd "$dir/initramfs.gz" \
    -append "console=ttyS0 quiet panic=-1 mitigations=off" -no-reboot -nographic -nic user,model=virtio-net-pci \
    -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
    </dev/null 2>&1 | sed -u 's/\r//g; s/^\x1bc.*\x1b\[[0-9]*[A-Za-z]//' | tee "$dir/log" || true
if ! grep -q '^cgroup2: passed$' "$dir/log"; then
    echo "cgroup2: FAILED; all that the machine said is in $dir/log" >&2
    exit 1
fi
