//! Addresses of this machine in the small language of `go-sockaddr`: `GetPrivateIP`, or
//! `GetAllInterfaces | include "network" "10.0.0.0/8" | attr "address"`.

use std::net::IpAddr;
use std::net::Ipv4Addr;

use regex::Regex;

use super::Answer;
use super::Failure;
use super::Functions;
use super::Options;
use super::Plain;
use super::Template;
use super::exactly;
use super::int_of;
use super::text_of;
use super::value::Key;
use super::value::Value;

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub address: IpAddr,
    /// Bits of the network's prefix.
    pub prefix: u8,
    pub up: bool,
    /// The default route leads through it.
    pub default: bool,
}

const FUNCTIONS: &[(&str, Plain)] = &[
    ("include", |a| filtered("include", a, true)),
    ("exclude", |a| filtered("exclude", a, false)),
    ("attr", attr),
    ("join", join),
    ("limit", limit),
    ("offset", offset),
    ("sort", sort),
    ("unique", unique),
];

/// Evaluates an expression over the addresses of this machine.
///
/// # Errors
/// Names what is wrong with the expression.
pub fn evaluate(expression: &str) -> Result<String, String> {
    expand(&format!("{{{{ {expression} }}}}"))
}

/// Replaces the expressions in a text, each in its double braces: `{{ GetInterfaceIP "eth0" }}:4646`.
///
/// # Errors
/// Names what is wrong with an expression.
pub fn expand(text: &str) -> Result<String, String> {
    expand_over(text, &interfaces())
}

/// The addresses of this machine, those of the default route's interface first, IPv4 before IPv6.
pub fn interfaces() -> Vec<Interface> {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = default_interface(&routes);
    let mut found: Vec<Interface> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|each| {
            let prefix = match &each.addr {
                if_addrs::IfAddr::V4(address) => address.prefixlen,
                if_addrs::IfAddr::V6(address) => address.prefixlen,
            };
            Interface {
                address: each.ip(),
                default: Some(&each.name) == default.as_ref(),
                up: each.is_oper_up() || each.is_loopback(),
                prefix,
                name: each.name,
            }
        })
        .collect();
    found.sort_by_key(|each| (!each.default, each.address.is_ipv6()));
    found
}

/// The interface of the default route with the lowest metric, from `/proc/net/route`.
pub fn default_interface(routes: &str) -> Option<String> {
    let rows = routes.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let default = rows.filter(|row| row.len() > 7 && row[1] == "00000000" && row[7] == "00000000");
    default.min_by_key(|row| row[6].parse::<u32>().unwrap_or(u32::MAX)).map(|row| row[0].to_owned())
}

fn expand_over(text: &str, all: &[Interface]) -> Result<String, String> {
    let mut functions = Functions::default();
    functions.add(FUNCTIONS);
    type Wanted = fn(&Interface) -> bool;
    let sets: [(&'static str, Wanted); 5] = [
        ("GetAllInterfaces", |_| true),
        ("GetDefaultInterfaces", |each| each.default),
        ("GetPrivateInterfaces", |each| usable(each) && is_private(each.address)),
        ("GetPublicInterfaces", |each| usable(each) && !is_private(each.address)),
        ("GetLoopbackInterfaces", |each| each.address.is_loopback()),
    ];
    for (name, wanted) in sets {
        functions.bind(name, move |_| Ok(values(all.iter().filter(|each| wanted(each)))));
    }
    let addresses: [(&'static str, bool, Wanted); 4] = [
        ("GetPrivateIP", false, |each| usable(each) && is_private(each.address)),
        ("GetPrivateIPs", true, |each| usable(each) && is_private(each.address)),
        ("GetPublicIP", false, |each| usable(each) && !is_private(each.address)),
        ("GetPublicIPs", true, |each| usable(each) && !is_private(each.address)),
    ];
    for (name, many, wanted) in addresses {
        functions.bind(name, move |_| Ok(texts(all.iter().filter(|each| wanted(each)), many)));
    }
    for (name, many) in [("GetInterfaceIP", false), ("GetInterfaceIPs", true)] {
        functions.bind(name, move |arguments| {
            let [pattern] = exactly(name, arguments)?;
            let pattern = text_of(pattern)?;
            let regex = Regex::new(&format!("^(?:{pattern})$")).map_err(Failure::called)?;
            Ok(texts(all.iter().filter(|each| regex.is_match(&each.name)), many))
        });
    }
    let template = Template::parse("sockaddr.Parse", text, &Options::default(), &functions)?;
    template.render(&Value::Missing, &functions)
}

fn usable(each: &Interface) -> bool {
    // Of one link, or for examples only.
    let elsewhere = match each.address {
        IpAddr::V4(address) => address.is_link_local() || address.is_documentation(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    each.up && !each.address.is_loopback() && !elsewhere
}

/// Of the ranges for private use.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let shared = u32::from(address) & 0xffc0_0000 == u32::from(Ipv4Addr::new(100, 64, 0, 0));
            address.is_private() || shared
        }
        IpAddr::V6(address) => address.is_unique_local(),
    }
}

fn texts<'a>(found: impl Iterator<Item = &'a Interface>, many: bool) -> Value {
    let texts: Vec<String> = found.map(|each| each.address.to_string()).collect();
    Value::from(if many { texts.join(" ") } else { texts.into_iter().next().unwrap_or_default() })
}

fn values<'a>(found: impl Iterator<Item = &'a Interface>) -> Value {
    let value = |each: &Interface| {
        let kind = if each.address.is_ipv4() { "IPv4" } else { "IPv6" };
        let mut flags = Vec::new();
        flags.extend(each.up.then_some("up"));
        flags.push(if each.address.is_loopback() { "loopback" } else { "broadcast|multicast" });
        flags.extend(usable(each).then_some("forwardable"));
        let fields = [
            ("name", each.name.clone()),
            ("address", each.address.to_string()),
            ("type", kind.to_owned()),
            ("flags", flags.join("|")),
            ("size", each.prefix.to_string()),
            ("network", format!("{}/{}", each.address, each.prefix)),
        ];
        Value::map(fields.into_iter().map(|(name, value)| (Key::from(name), Value::from(value))))
    };
    Value::from(found.map(value).collect::<Vec<_>>())
}

fn items(value: &Value) -> Result<Vec<Value>, Failure> {
    match value.viewed() {
        Value::List(items) => Ok(items.to_vec()),
        other => Err(Failure::Arguments(format!(
            "wrong type for value; expected sockaddr.IfAddrs; got {}",
            other.type_name()
        ))),
    }
}

fn field(value: &Value, name: &str) -> String {
    match value {
        Value::Map(map) => map.text(name).map(|value| value.to_text()).unwrap_or_default(),
        _ => String::new(),
    }
}

fn filtered(name: &str, arguments: &[Value], wanted: bool) -> Answer {
    let [selector, parameter, list] = exactly(name, arguments)?;
    let (selector, parameter) = (text_of(selector)?.to_lowercase(), text_of(parameter)?);
    let mut list = items(list)?;
    let matches: Box<dyn Fn(&Value) -> bool> = match selector.as_str() {
        "name" | "address" | "type" => {
            let regex = Regex::new(&format!("(?i){parameter}")).map_err(Failure::called)?;
            let selector = selector.clone();
            Box::new(move |each| regex.is_match(&field(each, &selector)))
        }
        "flag" | "flags" => {
            let flags: Vec<String> = parameter.split('|').map(str::to_lowercase).collect();
            Box::new(move |each| {
                let own = field(each, "flags");
                flags.iter().all(|flag| own.split('|').any(|known| known == flag))
            })
        }
        "size" => {
            let size = parameter.to_string();
            Box::new(move |each| field(each, "size") == size)
        }
        "network" => {
            let network = network(&parameter)
                .ok_or_else(|| Failure::called(format_args!("{parameter:?} is no network")))?;
            Box::new(move |each| {
                field(each, "address").parse().is_ok_and(|address| contains(network, address))
            })
        }
        "rfc" if matches!(parameter.as_ref(), "1918" | "6890") => {
            Box::new(|each| field(each, "address").parse().is_ok_and(is_private))
        }
        other => {
            return Err(Failure::called(format_args!(
                "invalid {name} selector {other:?} with {parameter:?}"
            )));
        }
    };
    list.retain(|each| matches(each) == wanted);
    Ok(Value::from(list))
}

fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    Some((address.parse().ok()?, bits.parse().ok()?))
}

fn contains((network, bits): (IpAddr, u32), address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(bits)).unwrap_or(0);
            u32::from(network) & mask == u32::from(address) & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(bits)).unwrap_or(0);
            u128::from(network) & mask == u128::from(address) & mask
        }
        _ => false,
    }
}

fn attr(arguments: &[Value]) -> Answer {
    let [name, list] = exactly("attr", arguments)?;
    let name = text_of(name)?;
    Ok(Value::from(items(list)?.first().map(|each| field(each, &name)).unwrap_or_default()))
}

fn join(arguments: &[Value]) -> Answer {
    let [name, separator, list] = exactly("join", arguments)?;
    let (name, separator) = (text_of(name)?, text_of(separator)?);
    let texts: Vec<String> = items(list)?.iter().map(|each| field(each, &name)).collect();
    Ok(Value::from(texts.join(&separator)))
}

fn limit(arguments: &[Value]) -> Answer {
    let [count, list] = exactly("limit", arguments)?;
    let mut list = items(list)?;
    list.truncate(usize::try_from(int_of(count)?).unwrap_or(0));
    Ok(Value::from(list))
}

fn offset(arguments: &[Value]) -> Answer {
    let [count, list] = exactly("offset", arguments)?;
    let (count, list) = (int_of(count)?, items(list)?);
    let size = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX).min(list.len());
    let from = if count < 0 { list.len() - size } else { size };
    Ok(Value::from(list[from..].to_vec()))
}

/// `sort "-size,address"`
fn sort(arguments: &[Value]) -> Answer {
    let [order, list] = exactly("sort", arguments)?;
    let (order, mut list) = (text_of(order)?, items(list)?);
    let number = |text: String| (text.parse::<u64>().unwrap_or(u64::MAX), text);
    list.sort_by(|left, right| {
        for word in order.split(',').map(str::trim) {
            let (down, name) = word.strip_prefix('-').map_or((false, word), |name| (true, name));
            let by = |each: &Value| match name {
                "address" => match field(each, name).parse::<IpAddr>() {
                    Ok(IpAddr::V4(address)) => (u64::from(u32::from(address)), String::new()),
                    _ => (u64::MAX, field(each, name)),
                },
                _ => number(field(each, name)),
            };
            let found = by(left).cmp(&by(right));
            if found.is_ne() {
                return if down { found.reverse() } else { found };
            }
        }
        std::cmp::Ordering::Equal
    });
    Ok(Value::from(list))
}

fn unique(arguments: &[Value]) -> Answer {
    let [name, list] = exactly("unique", arguments)?;
    let (name, mut list) = (text_of(name)?, items(list)?);
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|each| seen.insert(field(each, &name)));
    Ok(Value::from(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_choose_among_the_addresses() {
        let evaluate =
            |expression: &str, all: &[Interface]| expand_over(&format!("{{{{ {expression} }}}}"), all);
        let interface = |name: &str, address: &str, prefix: u8, default: bool| Interface {
            name: name.to_owned(),
            address: address.parse().unwrap(),
            prefix,
            up: true,
            default,
        };
        let all = [
            interface("eth0", "10.1.2.3", 24, true),
            interface("lo", "127.0.0.1", 8, false),
            interface("eth1", "192.168.0.7", 16, false),
            interface("ppp0", "8.8.4.4", 32, false),
            interface("eth1", "fe80::1", 64, false),
        ];
        for (expression, expected) in [
            ("GetPrivateIP", "10.1.2.3"),
            ("GetPrivateIPs", "10.1.2.3 192.168.0.7"),
            ("GetPublicIP", "8.8.4.4"),
            ("GetInterfaceIP \"eth1\"", "192.168.0.7"),
            ("GetInterfaceIP \"eth9\"", ""),
            ("GetAllInterfaces | include \"network\" \"192.168.0.0/16\" | attr \"address\"", "192.168.0.7"),
            (
                "GetAllInterfaces | exclude \"flags\" \"loopback\" | include \"type\" \"IPv4\" | join \"name\" \",\"",
                "eth0,eth1,ppp0",
            ),
            ("GetPrivateInterfaces | sort \"-address\" | limit 1 | attr \"name\"", "eth1"),
            ("GetAllInterfaces | unique \"name\" | offset -1 | attr \"address\"", "8.8.4.4"),
            ("GetDefaultInterfaces | attr \"network\"", "10.1.2.3/24"),
        ] {
            assert_eq!(evaluate(expression, &all).as_deref(), Ok(expected), "{expression}");
        }
        let error = evaluate("GetAllInterfaces | include \"colour\" \"red\"", &all).unwrap_err();
        let text = "{{ GetInterfaceIP \"eth1\" }}:4646 or {{GetPublicIP}}";
        assert_eq!(expand_over(text, &all).as_deref(), Ok("192.168.0.7:4646 or 8.8.4.4"));
        assert!(error.contains("invalid include selector \"colour\""), "{error}");
    }
}
