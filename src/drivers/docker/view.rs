//! What Docker says about a container, in the words of drivers.

use std::collections::BTreeMap;

use bollard::models::ContainerInspectResponse;
use bollard::models::ContainerStatsResponse;

use crate::drivers::Started;
use crate::drivers::TaskStats;

use super::State;

/// Docker's figures; their names depend on the version of control groups.
pub(super) fn usage(found: ContainerStatsResponse, pid: Option<i32>) -> TaskStats {
    let cpu = found.cpu_stats.unwrap_or_default();
    let time = cpu.cpu_usage.unwrap_or_default();
    let throttling = cpu.throttling_data.unwrap_or_default();
    let memory = found.memory_stats.unwrap_or_default();
    let details = memory.stats.unwrap_or_default();
    let detail = |names: [&str; 2]| names.iter().find_map(|name| details.get(*name).copied());
    TaskStats {
        cpu_time_ns: time.total_usage.unwrap_or(0),
        user_ns: time.usage_in_usermode,
        system_ns: time.usage_in_kernelmode,
        throttled_periods: throttling.throttled_periods,
        throttled_ns: throttling.throttled_time,
        rss_bytes: detail(["rss", "anon"]).or(memory.usage).unwrap_or(0),
        cache_bytes: detail(["cache", "file"]),
        swap_bytes: details.get("swap").copied(),
        usage_bytes: memory.usage,
        max_usage_bytes: memory.max_usage,
        pids: pid.into_iter().collect(),
        ..TaskStats::default()
    }
}

/// The first address of the container's networks. Others can reach it unless Docker hides it behind the host's.
pub(super) fn own_network(found: &ContainerInspectResponse, state: &State) -> Started {
    let networks = found.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let sorted: BTreeMap<_, _> = networks.into_iter().flatten().collect();
    let given = |address: &Option<String>| address.clone().filter(|ip| !ip.is_empty());
    let ipv6 =
        || sorted.iter().find_map(|(name, network)| Some((name, given(&network.global_ipv6_address)?)));
    let ipv4 = || sorted.iter().find_map(|(name, network)| Some((name, given(&network.ip_address)?)));
    let chosen = if state.prefer_ipv6 { ipv6().or_else(ipv4) } else { ipv4() };
    let Some((name, address)) = chosen else { return Started::default() };
    let hidden = ["bridge", "nat"].contains(&name.as_str());
    // A job that asks for an address of IPv6 says that others reach it; it says nothing about any other address.
    let wanted = state.prefer_ipv6 && address.contains(':');
    Started { address: Some(address), advertise: wanted || !hidden, ports: state.ports.clone() }
}

#[cfg(test)]
mod tests {
    use bollard::models::EndpointSettings;
    use bollard::models::NetworkSettings;

    use super::*;

    #[test]
    fn an_address_is_advertised_unless_docker_hides_it() {
        let look = |name: &str, ipv6: &str, prefer_ipv6| {
            let network = EndpointSettings {
                ip_address: Some("172.17.0.2".to_owned()),
                global_ipv6_address: Some(ipv6.to_owned()),
                ..EndpointSettings::default()
            };
            let networks = Some([(name.to_owned(), network)].into());
            let found = ContainerInspectResponse {
                network_settings: Some(NetworkSettings { networks, ..NetworkSettings::default() }),
                ..ContainerInspectResponse::default()
            };
            let started = own_network(&found, &State { prefer_ipv6, ..State::default() });
            (started.address.unwrap(), started.advertise)
        };
        let ipv4 = "172.17.0.2".to_owned();
        assert_eq!(look("bridge", "fd00::2", false), (ipv4.clone(), false));
        assert_eq!(look("mine", "fd00::2", false), (ipv4.clone(), true));
        assert_eq!(look("bridge", "fd00::2", true), ("fd00::2".to_owned(), true));
        assert_eq!(look("bridge", "", true), (ipv4, false), "there is none to be advertised");
        let nothing = ContainerInspectResponse::default();
        assert_eq!(own_network(&nothing, &State::default()), Started::default());
    }
}
