//! Address ranges in prefix notation.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;

use super::Answer;
use super::Args;
use super::Function;
use super::Value;
use super::Wrong;
use super::function;
use super::text;
use super::texts;
use super::whole;

pub(super) const FUNCTIONS: &[Function] = &[
    function("cidrhost", &["prefix", "hostnum"], cidrhost),
    function("cidrnetmask", &["prefix"], cidrnetmask),
    function("cidrsubnet", &["prefix", "newbits", "netnum"], cidrsubnet),
    function("cidrsubnets", &["prefix", "*newbits"], cidrsubnets),
];

/// A range: its first address as a number, the length of the prefix, and the width of an address in bits.
#[derive(Clone, Copy)]
struct Prefix {
    base: u128,
    length: u32,
    width: u32,
}

impl Prefix {
    fn parse(written: &str) -> Result<Self, String> {
        let invalid = || format!("invalid CIDR expression: invalid CIDR address: {written}");
        let (address, length) = written.split_once('/').ok_or_else(invalid)?;
        let length: u32 = length.parse().map_err(|_| invalid())?;
        let (base, width) = match address.parse::<IpAddr>().map_err(|_| invalid())? {
            IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
            IpAddr::V6(address) => (u128::from(address), 128),
        };
        if length > width {
            return Err(invalid());
        }
        let host = width - length;
        let base = if host >= 128 { 0 } else { base >> host << host };
        Ok(Self { base, length, width })
    }

    /// The number of addresses, saturated.
    fn size(self) -> u128 {
        1u128.checked_shl(self.width - self.length).unwrap_or(u128::MAX)
    }

    fn address(self, number: u128) -> String {
        if self.width == 32 {
            Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).to_string()
        } else {
            Ipv6Addr::from(number).to_string()
        }
    }

    fn subnet(self, bits: u32, number: u128) -> Result<Self, String> {
        let length = self.length.checked_add(bits).filter(|length| *length <= self.width);
        let length = length.ok_or_else(|| {
            format!("insufficient address space to extend prefix of {} by {bits}", self.length)
        })?;
        let fits = bits >= 128 || number < 1u128 << bits;
        if !fits {
            return Err(format!(
                "prefix extension of {bits} does not accommodate a subnet numbered {number}"
            ));
        }
        let host = self.width - length;
        let base = if host >= 128 { self.base } else { self.base | number << host };
        Ok(Self { base, length, width: self.width })
    }

    fn written(self) -> String {
        format!("{}/{}", self.address(self.base), self.length)
    }
}

fn cidrhost(args: &Args) -> Answer {
    let prefix = Prefix::parse(&text(args, 0)?)?;
    let number = whole(args, 1)?;
    let size = prefix.size();
    let distance = u128::from(number.unsigned_abs());
    let within = if number < 0 { distance <= size } else { distance < size };
    if !within {
        return Err(
            format!("prefix of {} does not accommodate a host numbered {number}", prefix.length).into()
        );
    }
    let offset = if number < 0 { size - distance } else { distance };
    Ok(Value::String(prefix.address(prefix.base + offset)))
}

fn cidrnetmask(args: &Args) -> Answer {
    let prefix = Prefix::parse(&text(args, 0)?)?;
    if prefix.width != 32 {
        return Err("IPv6 addresses cannot have a netmask".into());
    }
    let mask = u32::MAX.checked_shl(32 - prefix.length).unwrap_or(0);
    Ok(Value::String(Ipv4Addr::from(mask).to_string()))
}

fn bits(args: &Args, index: usize) -> Result<u32, Wrong> {
    u32::try_from(whole(args, index)?)
        .map_err(|_| Wrong::Argument(index, "must extend prefix by at least one bit".to_owned()))
}

fn cidrsubnet(args: &Args) -> Answer {
    let number = u128::try_from(whole(args, 2)?).map_err(|_| "the subnet number must not be negative")?;
    let subnet = Prefix::parse(&text(args, 0)?)?.subnet(bits(args, 1)?, number)?;
    Ok(Value::String(subnet.written()))
}

fn cidrsubnets(args: &Args) -> Answer {
    let prefix = Prefix::parse(&text(args, 0)?)?;
    let mut next = prefix.base;
    let mut out = Vec::new();
    for index in 1..args.len() {
        let length = prefix.subnet(bits(args, index)?, 0)?.length;
        let step = Prefix { base: next, length, width: prefix.width };
        let size = step.size();
        let start = next.div_ceil(size).checked_mul(size).ok_or("not enough remaining address space")?;
        if start - prefix.base > prefix.size() - size {
            return Err(format!(
                "not enough remaining address space for a subnet with a prefix of {length} bits"
            )
            .into());
        }
        out.push(Prefix { base: start, ..step }.written());
        next = start.saturating_add(size);
    }
    Ok(texts(out))
}
