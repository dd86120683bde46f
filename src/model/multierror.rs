//! Several errors as one text, in the form that scripts know.

/// A header with their number, then each on a line of its own, then an empty line.
pub fn multierror(errors: &[String]) -> String {
    let plural = if errors.len() == 1 { "" } else { "s" };
    let lines: Vec<String> = errors.iter().map(|error| format!("* {error}")).collect();
    format!("{} error{plural} occurred:\n\t{}\n\n", errors.len(), lines.join("\n\t"))
}
