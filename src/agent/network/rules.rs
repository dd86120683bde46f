//! The packet filter rules that are ours, beside those of the plugins.

use std::process::Stdio;

use tokio::process::Command;

/// Consulted by the firewall plugin's chain before all else; what operators put in it stays.
pub(super) const ADMIN_CHAIN: &str = "NOMAD-ADMIN";
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lets packets reach the bridge's subnet although the machine forwards nothing else: Docker sees to that where it
/// runs. Idempotent.
///
/// # Errors
/// `iptables` is missing or refuses.
pub(super) async fn admit(bridge: &str, subnet: &str, ipv6: bool) -> Result<(), String> {
    let program = if ipv6 { "ip6tables" } else { "iptables" };
    if iptables(program, &["-n", "-L", ADMIN_CHAIN]).await.is_err() {
        // Somebody else may have made it in between.
        let _ = iptables(program, &["-N", ADMIN_CHAIN]).await;
    }
    let rule = [ADMIN_CHAIN, "-o", bridge, "-d", subnet, "-j", "ACCEPT"];
    let with = |action| std::iter::once(action).chain(rule).collect::<Vec<_>>();
    if iptables(program, &with("-C")).await.is_ok() {
        return Ok(());
    }
    iptables(program, &with("-A")).await.map(drop)
}

/// Removes rules and chains of the address translation that still name a container. Plugins leave some behind when
/// they do not find its namespace any more.
pub(super) async fn sweep(container: &str) {
    for program in ["iptables", "ip6tables"] {
        let Ok(text) = iptables(program, &["-t", "nat", "-S"]).await else { continue };
        let of_container: Vec<&str> = text.lines().filter(|line| line.contains(container)).collect();
        let mut chains = Vec::new();
        for line in &of_container {
            let words = split(line);
            if let [action, chain, rest @ ..] = &words[..]
                && action == "-A"
            {
                let mut rule = vec!["-t", "nat", "-D", chain];
                rule.extend(rest.iter().map(String::as_str));
                // It may have gone meanwhile.
                let _ = iptables(program, &rule).await;
                let target = rest.iter().position(|word| word == "-j").and_then(|at| rest.get(at + 1));
                chains.extend([Some(chain), target].into_iter().flatten().cloned());
            }
        }
        // The plugins' own names for chains of one container: `CNI-` or `CNI-DN-` and a hash.
        chains.retain(|chain| chain.starts_with("CNI-") && chain.len() >= 24);
        chains.sort();
        chains.dedup();
        for chain in &chains {
            let _ = iptables(program, &["-t", "nat", "-F", chain]).await;
            let _ = iptables(program, &["-t", "nat", "-X", chain]).await;
        }
    }
}

async fn iptables(program: &str, args: &[&str]) -> Result<String, String> {
    let own = std::env::var("PATH").unwrap_or_default();
    let output = Command::new(program)
        .env("PATH", format!("{own}:{SEARCH_PATH}"))
        .arg("-w")
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let why = String::from_utf8_lossy(&output.stderr);
        Err(format!("{program} {}: {}", args.join(" "), why.trim()))
    }
}

/// Splits a rule as `iptables -S` prints it: words, some of them quoted.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let (mut quoted, mut escaped, mut begun) = (false, false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            ' ' if !quoted => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_they_are_printed() {
        let line = r#"-A CNI-1 -d 10.0.0.0/8 -m comment --comment "name: \"nomad\" id: \"x\"" -j ACCEPT"#;
        let words = split(line);
        assert_eq!(words[6], "--comment");
        assert_eq!(words[7], r#"name: "nomad" id: "x""#);
        assert_eq!(words.last().map(String::as_str), Some("ACCEPT"));
    }
}
