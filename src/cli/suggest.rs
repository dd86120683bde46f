//! Finds the known word that somebody may have meant.

/// The largest distance, in edits, at which a word is suggested.
const MAX_EDITS: usize = 3;

/// The known word nearest to `given`, if any is near enough; the first one among equals.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = MAX_EDITS.min(given.chars().count().div_ceil(3));
    let mut best: Option<(usize, &str)> = None;
    for word in known {
        let distance = edits(given, word);
        if distance <= limit && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, word));
        }
    }
    best.map(|(_, word)| word)
}

/// Insertions, deletions and replacements that turn one word into the other.
fn edits(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (at, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        assert_eq!(nearest("statsu", ["stop", "status"]), Some("status"));
        assert_eq!(nearest("xyz", ["stop", "status"]), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
