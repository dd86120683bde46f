//! The files by which programs find names: `/etc/hosts` and `/etc/resolv.conf` of a task.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;

use crate::model::network::DnsConfig;

/// Where systemd's resolver keeps the servers that it asks itself: those in `/etc/resolv.conf` are then its own
/// address, which nobody reaches from another namespace.
const BEHIND_RESOLVED: &str = "/run/systemd/resolve/resolv.conf";
const LOCAL_NAMES: &str = "\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
fe00::0 ip6-localnet
ff00::0 ip6-mcastprefix
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
ff02::3 ip6-allhosts
";

/// The text of `/etc/hosts` for tasks at `address`, who call themselves by `names`.
pub(super) fn hosts(address: &str, names: &[&str]) -> String {
    let mut text = format!("# Written by Herder.\n{LOCAL_NAMES}");
    if !address.is_empty() {
        text.push_str(&format!("\n# The address of the allocation, shared by its tasks.\n{address}"));
        for name in names {
            text.push(' ');
            text.push_str(name);
        }
        text.push('\n');
    }
    text
}

/// The text of `/etc/resolv.conf` that a `dns` block asks for.
pub(super) fn resolver(dns: &DnsConfig) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// The machine's own resolver settings, as far as they are of use in another namespace. A `dns` block without
/// servers completes them.
pub(super) fn machine_resolver() -> String {
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    if reachable(&own) {
        return own;
    }
    fs::read_to_string(BEHIND_RESOLVED).ok().filter(|text| reachable(text)).unwrap_or(own)
}

/// Does it name a server that is not at the loopback's address?
fn reachable(text: &str) -> bool {
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let mut addresses = servers.filter_map(|server| server.trim().parse::<IpAddr>().ok());
    addresses.any(|address| !address.is_loopback())
}

/// Settings of a job completed by those of the machine: whatever kind the job leaves out is taken over.
pub(super) fn complete(dns: &DnsConfig, machine: &str) -> DnsConfig {
    let lines = |kind: &str| -> Vec<String> {
        let found = machine.lines().filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some(kind)).then(|| words.map(str::to_owned).collect::<Vec<_>>())
        });
        found.flatten().collect()
    };
    let or = |given: &Vec<String>, kind: &str| if given.is_empty() { lines(kind) } else { given.clone() };
    DnsConfig {
        servers: or(&dns.servers, "nameserver"),
        searches: or(&dns.searches, "search"),
        options: or(&dns.options, "options"),
    }
}

/// Writes a file that every user can read.
pub(super) fn write(path: PathBuf, text: &str) -> io::Result<PathBuf> {
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}

/// The name of this machine.
pub(super) fn machine_name() -> String {
    fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_servers_are_written_as_resolvers_read_them() {
        let text = hosts("172.26.64.9", &["web", "host"]);
        assert!(text.contains("127.0.0.1 localhost\n"));
        assert!(text.ends_with("172.26.64.9 web host\n"), "{text}");
        assert!(!hosts("", &["web"]).contains("web"));
        let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let dns = DnsConfig {
            servers: list("10.0.0.1,10.0.0.2"),
            searches: list("a.example,b.example"),
            options: list("ndots:2"),
        };
        assert_eq!(
            resolver(&dns),
            "search a.example b.example\nnameserver 10.0.0.1\nnameserver 10.0.0.2\noptions ndots:2\n"
        );
        let some = DnsConfig { servers: Vec::new(), ..dns };
        let machine = "nameserver 192.0.2.1\nsearch x.example\n";
        assert_eq!(complete(&some, machine).servers, ["192.0.2.1"]);
        assert_eq!(complete(&some, machine).searches, ["a.example", "b.example"]);
        assert!(!reachable("nameserver 127.0.0.53\n") && reachable(machine));
    }
}
