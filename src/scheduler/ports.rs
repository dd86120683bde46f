//! Host ports in use on a node, per address, and the choice of free ones.

use std::net::IpAddr;

/// A host port on one address; without an address, on all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortGrant {
    pub port: u16,
    pub address: Option<IpAddr>,
}

impl PortGrant {
    /// Both want the same port on the same address.
    pub fn collides_with(&self, other: &Self) -> bool {
        self.port == other.port
            && (self.address.is_none() || other.address.is_none() || self.address == other.address)
    }
}

/// Ports held by allocations, sorted, with the number of holders: a replacement may share its predecessor's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortTable {
    held: Vec<(PortGrant, u16)>,
}

impl PortTable {
    pub(super) fn add(&mut self, grant: PortGrant) {
        match self.held.binary_search_by_key(&grant, |(held, _)| *held) {
            Ok(at) => self.held[at].1 = self.held[at].1.saturating_add(1),
            Err(at) => self.held.insert(at, (grant, 1)),
        }
    }

    pub(super) fn remove(&mut self, grant: PortGrant) {
        if let Ok(at) = self.held.binary_search_by_key(&grant, |(held, _)| *held) {
            self.held[at].1 -= 1;
            if self.held[at].1 == 0 {
                self.held.remove(at);
            }
        }
    }

    /// Whether nobody holds a port that collides with `wanted`, disregarding one holder for each entry of `yielded`.
    pub(super) fn is_free(&self, wanted: PortGrant, yielded: &[PortGrant]) -> bool {
        let start = self.held.partition_point(|(held, _)| held.port < wanted.port);
        self.held[start..].iter().take_while(|(held, _)| held.port == wanted.port).all(|(held, holders)| {
            let yielding = yielded.iter().filter(|grant| *grant == held).count();
            !held.collides_with(&wanted) || usize::from(*holders) <= yielding
        })
    }

    /// Number of entries: an upper bound on how many ports of one address are taken.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

/// Sorted, disjoint port ranges, as reserved by operators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortRanges(Vec<(u16, u16)>);

impl PortRanges {
    /// Reads `22,80,8000-8100`; parts that are no ports are left out (the agent has refused them already).
    pub(super) fn parse(texts: &[&str]) -> Self {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for part in texts.iter().flat_map(|text| text.split(',')).map(str::trim) {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(low), Ok(high)) = (low.trim().parse(), high.trim().parse()) {
                ranges.push((low, high));
            }
        }
        ranges.sort_unstable();
        Self(ranges)
    }

    pub(super) fn contain(&self, port: u16) -> bool {
        self.0.iter().any(|(low, high)| (*low..=*high).contains(&port))
    }

    /// How many ports are reserved, counting overlaps twice.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|(low, high)| usize::from(high.saturating_sub(*low)) + 1).sum()
    }
}

/// The first free port of `[low, high]` at or after a start that `seed` chooses, wrapping round.
///
/// The seed comes from the allocation's id, so neighbours start far apart and the choice is repeatable.
pub(super) fn choose_port(low: u16, high: u16, seed: u64, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    let size = u64::from(high.checked_sub(low)?) + 1;
    let start = seed % size;
    (0..size)
        .map(|step| low + u16::try_from((start + step) % size).expect("the range lies within u16"))
        .find(|port| is_free(*port))
}
