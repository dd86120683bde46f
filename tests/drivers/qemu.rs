//! Virtual machines, with a guest of 512 bytes.

use std::fs;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

use herder::drivers::DriverError;
use herder::model::network::Network;
use herder::model::network::Port;
use serde_json::Value;
use serde_json::json;

use crate::support::Bench;
use crate::support::options;

/// Greets over the serial line, waits for the power button, and switches itself off.
#[rustfmt::skip]
const CODE: &[u8] = &[
    0x31, 0xc0,             // xor ax, ax
    0x8e, 0xd8,             // mov ds, ax
    0xbe, 0x2c, 0x7c,       // mov si, greeting
    0xac,                   // next: lodsb
    0x84, 0xc0,             // test al, al
    0x74, 0x06,             // jz ready
    0xba, 0xf8, 0x03,       // mov dx, 0x3f8 (first serial line)
    0xee,                   // out dx, al
    0xeb, 0xf5,             // jmp next
    0xba, 0x02, 0x06,       // ready: mov dx, 0x602 (which events are wanted)
    0xb8, 0x00, 0x01,       // mov ax, 0x100 (the power button)
    0xef,                   // out dx, ax
    0xba, 0x00, 0x06,       // mov dx, 0x600 (which events there are)
    0xed,                   // wait: in ax, dx
    0xf6, 0xc4, 0x01,       // test ah, 1
    0x74, 0xfa,             // jz wait
    0xba, 0x04, 0x06,       // mov dx, 0x604 (power)
    0xb8, 0x00, 0x20,       // mov ax, 0x2000 (off)
    0xef,                   // out dx, ax
    0xf4,                   // rest: hlt
    0xeb, 0xfd,             // jmp rest
];

fn write_image(path: &Path) {
    let mut sector = CODE.to_vec();
    sector.extend(b"hello from a guest\r\n\0");
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    fs::write(path, sector).unwrap();
}

fn machine(config: Value) -> Bench {
    let mut bench = Bench::new("qemu", config);
    bench.config.grant.memory.memory_mb = 128;
    // No format is given on the command line, so a warning goes to the error output.
    write_image(&bench.config.dirs.local.join("guest.img"));
    bench
}

#[tokio::test]
async fn a_guest_boots_and_powers_down_when_asked() {
    let config = json!({"image_path": "local/guest.img", "graceful_shutdown": true, "args": ["-nodefaults", "-serial", "stdio"]});
    let mut bench = machine(config);
    let info = bench.driver.fingerprint().await;
    assert!(info.detected && info.healthy, "{info:?}");
    assert!(info.attributes["driver.qemu.version"].starts_with(|sign: char| sign.is_ascii_digit()));
    let handle = bench.start().await;
    bench.wait_for_log("stdout", "hello from a guest").await;
    assert!(bench.driver.stats(&handle).await.unwrap().rss_bytes > 1 << 20);
    assert!(bench.driver.signal(&handle, "SIGHUP").await.is_err());
    bench.driver.recover(&handle).await.unwrap();
    let begun = Instant::now();
    bench.driver.stop(&handle, "", Duration::from_secs(60)).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(50), "the guest was killed, it did not power down");
    assert!(bench.wait(&handle).await.is_success());
    bench.finish().await;
}

#[tokio::test]
async fn ports_and_options_stand_on_the_command_line() {
    let config = json!({"image_path": "local/guest.img", "drive_interface": "virtio", "guest_agent": true, "port_map": [{"ssh": 22}]});
    let mut bench = machine(config);
    let error = bench.try_start().await.unwrap_err();
    assert_eq!(error, DriverError::BadConfig("Unknown port label \"ssh\"".to_owned()));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let value = listener.local_addr().unwrap().port();
    drop(listener);
    let port = Port { label: "ssh".to_owned(), value: value.into(), ..Port::default() };
    bench.config.grant.networks = vec![Network { dynamic_ports: vec![port], ..Network::default() }];
    let handle = bench.start().await;
    let pid = bench.driver.stats(&handle).await.unwrap().pids[0];
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().replace('\0', " ");
    let task = bench.config.dirs.task.canonicalize().unwrap().display().to_string();
    let expected = format!(
        "qemu-system-x86_64 -machine type=pc,accel=tcg -name guest.img -m 128M \
         -drive file={task}/local/guest.img,if=virtio -nographic -chardev socket,path={task}/qa.sock,server,nowait,id=qga0 "
    );
    assert!(line.starts_with(&expected), "{line}");
    assert!(
        line.ends_with(&format!(
            " -netdev user,id=user.0,hostfwd=udp::{value}-:22,hostfwd=tcp::{value}-:22 -device virtio-net,netdev=user.0 "
        )),
        "{line}"
    );
    // The connection is made by the emulator, whatever the guest does with it.
    let limit = Instant::now() + Duration::from_secs(60);
    while tokio::net::TcpStream::connect(("127.0.0.1", value)).await.is_err() {
        assert!(Instant::now() < limit, "nobody listens at the forwarded port");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bench.driver.stop(&handle, "SIGTERM", Duration::from_secs(20)).await.unwrap();
    bench.finish().await;
}

#[tokio::test]
async fn images_and_flags_must_be_allowed() {
    let outside = tempfile::tempdir().unwrap();
    write_image(&outside.path().join("guest.img"));
    let mut bench = machine(json!({"image_path": "local/link.img"}));
    std::os::unix::fs::symlink(outside.path().join("guest.img"), bench.config.dirs.local.join("link.img"))
        .unwrap();
    for path in ["local/link.img", "../../../../../../etc/hostname", "/etc/hostname"] {
        bench.set_config(json!({"image_path": path}));
        let error = bench.try_start().await.unwrap_err().to_string();
        assert_eq!(error, "image_path is not in the allowed paths");
    }
    bench.set_config(json!({"image_path": "local/guest.img"}));
    bench.config.grant.memory.memory_mb = 127;
    let error = bench.try_start().await.unwrap_err().to_string();
    assert_eq!(error, "QEMU memory assignment out of bounds");
    bench.finish().await;

    let mut options = options();
    options.qemu.image_paths = vec![outside.path().to_owned()];
    options.qemu.args_allowlist = vec!["-serial".to_owned()];
    let image = outside.path().join("guest.img").display().to_string();
    let mut bench = Bench::with(&options, "qemu", json!({"image_path": image, "args": ["-usb"]}));
    bench.config.grant.memory.memory_mb = 128;
    let error = bench.try_start().await.unwrap_err().to_string();
    assert_eq!(error, "args: \"-usb\" is not in the allowlist of this agent");
    bench.set_config(json!({"image_path": image, "accelerator": "magic"}));
    let error = bench.try_start().await.unwrap_err().to_string();
    assert_eq!(error, "accelerator must be one of tcg, kvm, got \"magic\"");
    bench.set_config(json!({"image_path": image, "drive_interface": "usb"}));
    let error = bench.try_start().await.unwrap_err().to_string();
    assert_eq!(
        error,
        "drive_interface must be one of ide, scsi, sd, mtd, floppy, pflash, virtio, none, got \"usb\""
    );
    bench.set_config(json!({"image_path": image}));
    bench.start().await;
    bench.wait_for_log("stdout", "hello from a guest").await;
    bench.finish().await;
}
