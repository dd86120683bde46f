//! Version numbers and version constraints, with the rules of HashiCorp's go-version: any number of segments,
//! an optional leading `v`, pre-releases, and `~>`.

use std::cmp::Ordering;

/// Segments that a short version is padded to.
const SEGMENTS_MIN: usize = 3;

/// How strictly a version is read, and how pre-releases compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Operator `version`: a pre-release meets only bounds with a pre-release of the same base; knows `~>`.
    Lenient,
    /// Operator `semver`: pre-releases compare by SemVer order; a pre-release needs its dash.
    Strict,
}

/// A parsed version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version {
    segments: Vec<u64>,
    /// Number of segments as written, before padding.
    given: usize,
    pre: String,
}

impl Version {
    /// Reads a version; `None` when the text is not one.
    pub(super) fn parse(text: &str, style: Style) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, metadata) = match text.split_once('+') {
            Some((text, metadata)) => (text, Some(metadata)),
            None => (text, None),
        };
        if metadata.is_some_and(|metadata| !are_parts(metadata)) {
            return None;
        }
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let pre = match (rest.strip_prefix('-'), style) {
            (Some(pre), _) => pre,
            (None, Style::Strict) if !rest.is_empty() => return None,
            (None, _) => rest,
        };
        if (!rest.is_empty()) && !are_parts(pre) {
            return None;
        }
        let mut segments = Vec::with_capacity(SEGMENTS_MIN);
        for part in numbers.split('.') {
            segments.push(part.parse().ok()?);
        }
        let given = segments.len();
        segments.resize(given.max(SEGMENTS_MIN), 0);
        Some(Self { segments, given, pre: pre.to_owned() })
    }

    fn compare(&self, other: &Self) -> Ordering {
        let length = self.segments.len().max(other.segments.len());
        let segment = |version: &Self, at: usize| version.segments.get(at).copied().unwrap_or(0);
        for at in 0..length {
            match segment(self, at).cmp(&segment(other, at)) {
                Ordering::Equal => {}
                unequal => return unequal,
            }
        }
        compare_pre(&self.pre, &other.pre)
    }
}

fn are_parts(text: &str) -> bool {
    text.split('.').all(|part| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '~')
    })
}

fn compare_pre(left: &str, right: &str) -> Ordering {
    match (left.is_empty(), right.is_empty()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let mut left = left.split('.');
    let mut right = right.split('.');
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Pessimistic,
}

/// The operators, longer spellings first.
const RELATIONS: [(&str, Relation); 7] = [
    ("!=", Relation::NotEqual),
    (">=", Relation::GreaterOrEqual),
    ("<=", Relation::LessOrEqual),
    ("~>", Relation::Pessimistic),
    ("=", Relation::Equal),
    (">", Relation::Greater),
    ("<", Relation::Less),
];

/// Bounds that must all hold, as `>= 1.2, < 2`.
#[derive(Clone, Debug)]
pub(super) struct VersionBounds {
    style: Style,
    bounds: Vec<(Relation, Version)>,
}

impl VersionBounds {
    /// Reads a comma list of bounds; `None` when one of them is malformed.
    pub(super) fn parse(text: &str, style: Style) -> Option<Self> {
        let bounds = text.split(',').map(|part| parse_bound(part.trim(), style)).collect::<Option<_>>()?;
        Some(Self { style, bounds })
    }

    /// Whether the version written as `text` meets every bound; false when it is no version.
    pub(super) fn contain(&self, text: &str) -> bool {
        let Some(version) = Version::parse(text, self.style) else {
            return false;
        };
        self.bounds.iter().all(|(relation, bound)| is_met(*relation, &version, bound, self.style))
    }
}

fn parse_bound(text: &str, style: Style) -> Option<(Relation, Version)> {
    let (relation, rest) = RELATIONS
        .iter()
        .find_map(|(sign, relation)| Some((*relation, text.strip_prefix(sign)?)))
        .unwrap_or((Relation::Equal, text));
    if relation == Relation::Pessimistic && style == Style::Strict {
        return None;
    }
    Some((relation, Version::parse(rest, style)?))
}

fn is_met(relation: Relation, version: &Version, bound: &Version, style: Style) -> bool {
    let order = version.compare(bound);
    let comparable = style == Style::Strict || pre_releases_compare(version, bound);
    match relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => comparable && order.is_gt(),
        Relation::GreaterOrEqual => comparable && order.is_ge(),
        Relation::Less => comparable && order.is_lt(),
        Relation::LessOrEqual => comparable && order.is_le(),
        Relation::Pessimistic => comparable && order.is_ge() && is_pessimistic(version, bound),
    }
}

/// A pre-release compares only with a bound that names a pre-release of the same base.
fn pre_releases_compare(version: &Version, bound: &Version) -> bool {
    match (version.pre.is_empty(), bound.pre.is_empty()) {
        (true, _) => true,
        (false, true) => false,
        (false, false) => version.segments == bound.segments,
    }
}

/// `~> 1.2.3` admits changes of the last written segment only.
fn is_pessimistic(version: &Version, bound: &Version) -> bool {
    if (!bound.pre.is_empty() && version.pre.is_empty()) || version.segments.len() < bound.segments.len() {
        return false;
    }
    let last = bound.given - 1;
    version.segments[..last] == bound.segments[..last] && version.segments[last] >= bound.segments[last]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(style: Style, cases: &[(&str, &str, bool)]) {
        for (version, bounds, expected) in cases {
            let met = VersionBounds::parse(bounds, style).is_some_and(|bounds| bounds.contain(version));
            assert_eq!(met, *expected, "{version} against {bounds}");
        }
    }

    #[test]
    fn lenient_versions_follow_go_version() {
        check(
            Style::Lenient,
            &[
                ("1.2.3", ">= 1.2, < 2", true),
                ("2.0", ">= 1.2, < 2", false),
                ("v1.2", "= 1.2.0", true),
                ("1.2", "1.2.0", true),
                ("1.2.4", "!= 1.2.3", true),
                ("1.2.9", "~> 1.2.3", true),
                ("1.3.0", "~> 1.2.3", false),
                ("1.9", "~> 1.2", true),
                ("2.0", "~> 1.2", false),
                ("5", "~> 4", true),
                ("1.2.2", "~> 1.2.3", false),
                ("6.1.0-18-amd64", ">= 5.0", false),
                ("1.2.0-beta.2", "> 1.2.0-beta.1", true),
                ("1.3.0-beta", "> 1.2.0-beta", false),
                ("1.2.0", "> 1.2.0-beta", true),
                ("1.2.0beta1", "= 1.2.0-beta1", true),
                ("1.2.3.4", "> 1.2.3", true),
                ("1.2.0+meta", "= 1.2.0", true),
                ("linux", ">= 1", false),
                ("1..2", ">= 1", false),
                ("1.2", ">= x", false),
            ],
        );
    }

    #[test]
    fn strict_versions_compare_pre_releases_by_order_and_know_no_tilde() {
        check(
            Style::Strict,
            &[
                ("6.1.0-18-amd64", ">= 5.0", true),
                ("0.1.9", "< 0.2", true),
                ("1.2.0-rc1", "< 1.2.0", true),
                ("1.2.0-rc1", ">= 1.2.0", false),
                ("1.2.0-alpha.1", "< 1.2.0-alpha.beta", true),
                ("1.2.0-alpha.9", "< 1.2.0-alpha.10", true),
                ("1.2.0beta1", "> 1.0", false),
                ("1.2.9", "~> 1.2.3", false),
            ],
        );
    }
}
