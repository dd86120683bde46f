//! Which address and port a service is registered with.

use crate::agent::hooks::ServiceContext;

/// A granted port, wherever it was asked for.
struct Mapping<'a> {
    host_ip: &'a str,
    value: i64,
    /// The port inside, if it differs.
    to: i64,
}

impl Mapping<'_> {
    fn inside(&self) -> i64 {
        if self.to > 0 { self.to } else { self.value }
    }
}

fn mapping<'a>(context: &'a ServiceContext, label: &str) -> Option<Mapping<'a>> {
    if let Some(port) = context.ports.iter().find(|port| port.label == label) {
        return Some(Mapping { host_ip: &port.host_ip, value: port.value.into(), to: port.to });
    }
    context.task_networks.iter().find_map(|network| {
        let port = network.ports().find(|port| port.label == label)?;
        Some(Mapping { host_ip: &network.ip, value: port.value, to: port.to })
    })
}

/// Address and port for `mode` (`auto`, `host`, `driver`, `alloc`, `alloc_ipv6`); `custom` is the service's own
/// `address`. An empty address stands for the node's.
///
/// # Errors
/// In Nomad's words, when the port or the network that the mode needs is not there.
pub(super) fn resolve(
    context: &ServiceContext,
    mode: &str,
    custom: &str,
    label: &str,
) -> Result<(String, i64), String> {
    let mapped = mapping(context, label);
    let literal = || -> Result<i64, String> {
        match label {
            "" => Ok(0),
            text => text
                .parse::<u16>()
                .map(i64::from)
                .map_err(|_| format!("invalid port {label:?}: port label not found")),
        }
    };
    match mode {
        "" | "auto" if !custom.is_empty() => {
            Ok((custom.to_owned(), mapped.map_or_else(literal, |mapping| Ok(mapping.value))?))
        }
        "" | "auto" if context.driver_advertises && context.driver_address.is_some() => {
            resolve(context, "driver", "", label)
        }
        "" | "auto" | "host" => match mapped {
            Some(mapping) => Ok((mapping.host_ip.to_owned(), mapping.value)),
            None if label.is_empty() && context.task_networks.len() == 1 => {
                Ok((context.task_networks[0].ip.clone(), 0))
            }
            None => Ok((String::new(), literal()?)),
        },
        "driver" => {
            let address = context.driver_address.clone();
            let address = address.ok_or("cannot use address_mode=\"driver\": no driver network exists")?;
            let to = mapped.as_ref().map(|mapping| mapping.to).filter(|to| *to > 0);
            let chosen = context.driver_ports.get(label).map(|port| i64::from(*port));
            let inside = to.or(chosen).or(mapped.map(|mapping| mapping.inside()));
            Ok((address, inside.map_or_else(literal, Ok)?))
        }
        "alloc" | "alloc_ipv6" => {
            let status = context.network_status.as_ref();
            let address = status.map(|status| {
                if mode == "alloc" { status.address.clone() } else { status.address_ipv6.clone() }
            });
            let address = address.filter(|address| !address.is_empty()).ok_or_else(|| {
                format!("cannot use address_mode=\"{mode}\": no allocation network status reported")
            })?;
            Ok((address, mapped.map_or_else(literal, |mapping| Ok(mapping.inside()))?))
        }
        other => Err(format!("invalid address mode {other:?}")),
    }
}
