//! Replacement of `${name}` by looked-up values. Unknown names stay as they are.

/// Replaces every `${name}` for which `lookup` knows a value. Names consist of letters, digits, `_`, `-` and `.`;
/// anything else, and unknown names, are left as written.
pub fn interpolate(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        match after.find('}') {
            Some(end) if is_name(&after[..end]) => {
                match lookup(&after[..end]) {
                    Some(value) => out.push_str(&value),
                    None => out.push_str(&rest[start..start + 2 + end + 1]),
                }
                rest = &after[end + 1..];
            }
            _ => {
                out.push_str("${");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_replaced_and_others_stay() {
        let lookup = |name: &str| (name == "attr.cpu.arch").then(|| "amd64".to_owned());
        for (text, expected) in [
            ("${attr.cpu.arch}", "amd64"),
            ("x-${attr.cpu.arch}-${meta.y}", "x-amd64-${meta.y}"),
            ("${a b} ${attr.cpu.arch", "${a b} ${attr.cpu.arch"),
            ("${${attr.cpu.arch}}", "${amd64}"),
        ] {
            assert_eq!(interpolate(text, lookup), expected);
        }
    }
}
