//! Devices: which group of them meets a wish, and which instances are free.

use serde_json::Value;

use crate::model::node::NodeDevice;
use crate::model::resources::AllocatedDevice;
use crate::model::resources::RequestedDevice;

use super::attribute::Comparison;

/// Whether a group of devices is of the wanted kind and meets the request's constraints.
pub(super) fn matches(group: &NodeDevice, request: &RequestedDevice) -> bool {
    has_name(group, &request.name)
        && request
            .constraints
            .iter()
            .filter(|constraint| constraint.left != "${device.ids}")
            .all(|constraint| holds(group, &constraint.left, &constraint.operand, &constraint.right))
}

fn has_name(group: &NodeDevice, wanted: &str) -> bool {
    let parts: Vec<&str> = wanted.splitn(3, '/').collect();
    match parts[..] {
        [kind] => kind == group.kind,
        [vendor, kind] => vendor == group.vendor && kind == group.kind,
        [vendor, kind, name] => vendor == group.vendor && kind == group.kind && name == group.name,
        _ => false,
    }
}

/// The mean weight of the request's affinities that hold, from -1 to 1, and the sum of weights.
fn affinity(group: &NodeDevice, request: &RequestedDevice) -> (f64, f64) {
    let mut matched = 0.0;
    let mut total = 0.0;
    for affinity in &request.affinities {
        let weight = affinity.weight as f64;
        total += weight.abs();
        if holds(group, &affinity.left, &affinity.operand, &affinity.right) {
            matched += weight;
        }
    }
    (matched, total)
}

/// Chosen instances, and matched and total affinity weights.
pub(super) struct DeviceOffer {
    pub(super) granted: AllocatedDevice,
    pub(super) weights: (f64, f64),
}

/// The group with the highest affinity that has enough free instances, and its first free ones.
pub(super) fn offer(
    groups: &[NodeDevice],
    request: &RequestedDevice,
    is_free: impl Fn(&str) -> bool,
) -> Option<DeviceOffer> {
    let wanted = usize::try_from(request.count.max(1)).ok()?;
    let mut best: Option<DeviceOffer> = None;
    for group in groups.iter().filter(|group| matches(group, request)) {
        let free: Vec<String> = group
            .instances
            .iter()
            .filter(|instance| instance.healthy && is_free(&key(group, &instance.id)))
            .filter(|instance| {
                let mut limits = request.constraints.iter().filter(|c| c.left == "${device.ids}");
                limits.all(|c| {
                    Comparison::new(&instance.id, &c.operand, &c.right)
                        .holds(Some(&instance.id), Some(&c.right))
                })
            })
            .map(|instance| instance.id.clone())
            .take(wanted)
            .collect();
        let weights = affinity(group, request);
        if free.len() < wanted || best.as_ref().is_some_and(|best| best.weights.0 >= weights.0) {
            continue;
        }
        let granted = AllocatedDevice {
            vendor: group.vendor.clone(),
            kind: group.kind.clone(),
            name: group.name.clone(),
            device_ids: free,
        };
        best = Some(DeviceOffer { granted, weights });
    }
    best
}

/// How an instance is named in usage.
pub(super) fn key(group: &NodeDevice, instance: &str) -> String {
    format!("{}/{}/{}/{instance}", group.vendor, group.kind, group.name)
}

fn holds(group: &NodeDevice, left: &str, operator: &str, right: &str) -> bool {
    let (left, right) = (resolve(group, left), resolve(group, right));
    let comparison = Comparison::new("", operator, "");
    if let (Some(a), Some(b)) = (left.as_deref().and_then(quantity), right.as_deref().and_then(quantity))
        && let Some(answer) = compare_quantities(operator, a, b)
    {
        return answer;
    }
    match operator {
        // These compile their right side, which here is a value and no target.
        "version" | "semver" | "regexp" => {
            let (Some(left), Some(right)) = (left, right) else {
                return false;
            };
            Comparison::new("", operator, &right).holds(Some(&left), Some(&right))
        }
        _ => comparison.holds(left.as_deref(), right.as_deref()),
    }
}

fn resolve(group: &NodeDevice, target: &str) -> Option<String> {
    match target {
        "${device.model}" => return Some(group.name.clone()),
        "${device.vendor}" => return Some(group.vendor.clone()),
        "${device.type}" => return Some(group.kind.clone()),
        _ => {}
    }
    if !target.starts_with("${") {
        return Some(target.to_owned());
    }
    let name = target.strip_prefix("${device.attr.")?.strip_suffix('}')?;
    text_of(group.attributes.get(name)?)
}

/// An attribute's value as text: plain, or an object with one of Nomad's typed fields and a unit.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Object(fields) => {
            let typed =
                ["String", "Int", "Float", "Bool"].iter().find_map(|name| match fields.get(*name) {
                    None | Some(Value::Null) => None,
                    Some(value) => text_of(value),
                })?;
            match fields.get("Unit").and_then(Value::as_str) {
                Some(unit) if !unit.is_empty() => Some(format!("{typed} {unit}")),
                _ => Some(typed),
            }
        }
        _ => None,
    }
}

/// Units by dimension: size in bytes, rate in bytes per second, frequency in hertz, power in watts.
const UNITS: [(&str, char, f64); 22] = [
    ("kB", 'b', 1e3),
    ("MB", 'b', 1e6),
    ("GB", 'b', 1e9),
    ("TB", 'b', 1e12),
    ("KiB", 'b', 1024.0),
    ("MiB", 'b', 1_048_576.0),
    ("GiB", 'b', 1_073_741_824.0),
    ("TiB", 'b', 1_099_511_627_776.0),
    ("kB/s", 'r', 1e3),
    ("MB/s", 'r', 1e6),
    ("GB/s", 'r', 1e9),
    ("KiB/s", 'r', 1024.0),
    ("MiB/s", 'r', 1_048_576.0),
    ("GiB/s", 'r', 1_073_741_824.0),
    ("TiB/s", 'r', 1_099_511_627_776.0),
    ("MHz", 'h', 1e6),
    ("GHz", 'h', 1e9),
    ("mW", 'w', 1e-3),
    ("W", 'w', 1.0),
    ("kW", 'w', 1e3),
    ("MW", 'w', 1e6),
    ("GW", 'w', 1e9),
];

/// A number with its dimension; `None` for text.
fn quantity(text: &str) -> Option<(f64, Option<char>)> {
    let text = text.trim();
    let end =
        text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim();
    if unit.is_empty() {
        return Some((number, None));
    }
    let (_, dimension, factor) = UNITS.iter().find(|(name, _, _)| *name == unit)?;
    Some((number * factor, Some(*dimension)))
}

fn compare_quantities(operator: &str, left: (f64, Option<char>), right: (f64, Option<char>)) -> Option<bool> {
    if left.1 != right.1 {
        return None;
    }
    let order = left.0.total_cmp(&right.0);
    Some(match operator {
        "=" | "==" | "is" | "" => order.is_eq(),
        "!=" | "not" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        ">=" => order.is_ge(),
        _ => return None,
    })
}
