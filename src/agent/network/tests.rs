use super::*;

fn networks(dir: &Path) -> Networks {
    Networks::new(NetworkOptions {
        cni_path: vec![dir.join("bin")],
        cni_config_dir: dir.join("config"),
        owner: dir.to_owned(),
        records: dir.join("records"),
        namespaces: dir.join("netns"),
        ..NetworkOptions::default()
    })
}

fn alloc(seed: u8) -> AllocId {
    AllocId::from_random([seed; 16])
}

#[test]
fn the_bridge_is_configured_as_nomads_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut networks = networks(dir.path());
    networks.options.subnet_ipv6 = "fd00:a::/64".into();
    let network = networks.bridge();
    let kinds: Vec<_> = network.plugins.iter().map(|plugin| plugin["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["loopback", "bridge", "firewall", "portmap"]);
    assert_eq!((network.name.as_str(), network.cni_version.as_str()), ("nomad", "0.4.0"));
    let ipam = &network.plugins[1]["ipam"];
    assert_eq!(ipam["ranges"], json!([[{"subnet": "172.26.64.0/20"}], [{"subnet": "fd00:a::/64"}]]));
    assert_eq!(ipam["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
    assert_eq!(network.plugins[2]["iptablesAdminChainName"], "NOMAD-ADMIN");
}

#[test]
fn modes_are_told_apart_whatever_their_case() {
    for mode in ["bridge", "Bridge", "none", "cni/x", "CNI/x"] {
        assert!(is_isolated(mode), "{mode}");
    }
    for mode in ["", "host", "foo"] {
        assert!(!is_isolated(mode), "{mode}");
    }
}

/// A network of one plugin, a script that writes down how it was called.
fn scripted(dir: &Path, body: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(dir.join("bin")).unwrap();
    fs::create_dir_all(dir.join("config")).unwrap();
    let log = dir.join("calls");
    let script =
        format!("#!/bin/sh\ncat >/dev/null\necho \"$CNI_COMMAND $CNI_ARGS\" >>{}\n{body}\n", log.display());
    let program = dir.join("bin/scripted");
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let config = r#"{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"scripted"}]}"#;
    fs::write(dir.join("config/lab.conflist"), config).unwrap();
}

fn plan() -> Plan {
    Plan { mode: "cni/lab".into(), args: vec![("A".into(), "b;c".into())], ..Plan::default() }
}

/// The mount that keeps namespaces must not outlive the test's directory.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_network_is_made_found_by_the_next_agent_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path().join("netns"));
    scripted(dir.path(), r#"echo '{"ips": [{"address": "10.9.0.2/24"}]}'"#);
    let first = networks(dir.path());
    let status = first.set_up(alloc(1), &plan(), &Drivers::new()).await.unwrap();
    assert_eq!(status.address, "10.9.0.2");
    assert!(first.stands(alloc(1)));
    drop(first);
    let second = networks(dir.path());
    assert!(second.stands(alloc(1)));
    assert!(second.leftovers(&BTreeSet::from([alloc(1)])).is_empty());
    assert_eq!(second.leftovers(&BTreeSet::new()), [alloc(1)]);
    let mut stranger = networks(dir.path());
    stranger.options.owner = "/elsewhere".into();
    assert!(stranger.leftovers(&BTreeSet::new()).is_empty(), "networks of other agents are left alone");
    second.tear_down(alloc(1), &Drivers::new()).await.unwrap();
    second.tear_down(alloc(1), &Drivers::new()).await.unwrap();
    assert!(!second.stands(alloc(1)) && second.leftovers(&BTreeSet::new()).is_empty());
    let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
    assert_eq!(calls, "ADD IgnoreUnknown=true;A=b_c\nDEL IgnoreUnknown=true;A=b_c\n");
}

#[tokio::test]
async fn a_plugin_that_fails_is_asked_three_times_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path().join("netns"));
    scripted(dir.path(), r#"[ "$CNI_COMMAND" = DEL ] || { echo '{"msg": "no room"}'; exit 1; }"#);
    let networks = networks(dir.path());
    let error = networks.set_up(alloc(2), &plan(), &Drivers::new()).await.unwrap_err();
    assert_eq!(error, "plugin type=\"scripted\" failed (add): no room");
    let calls = fs::read_to_string(dir.path().join("calls")).unwrap();
    assert_eq!(calls.lines().filter(|line| line.starts_with("ADD")).count(), 3);
    assert_eq!(calls.lines().filter(|line| line.starts_with("DEL")).count(), 3);
    assert!(!networks.namespace(alloc(2)).exists() && networks.leftovers(&BTreeSet::new()).is_empty());
}

#[tokio::test]
async fn what_cannot_be_removed_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let _unmount = Unmount(dir.path().join("netns"));
    scripted(
        dir.path(),
        r#"[ "$CNI_COMMAND" = ADD ] || exit 1; echo '{"ips": [{"address": "10.9.0.2/24"}]}'"#,
    );
    let networks = networks(dir.path());
    networks.set_up(alloc(3), &plan(), &Drivers::new()).await.unwrap();
    assert!(networks.tear_down(alloc(3), &Drivers::new()).await.is_err());
    assert_eq!(networks.leftovers(&BTreeSet::new()), [alloc(3)]);
    scripted(dir.path(), "");
    networks.tear_down(alloc(3), &Drivers::new()).await.unwrap();
    assert!(!networks.namespace(alloc(3)).exists());
}
