//! Medians and percentiles of small samples.

/// The value below which `share` (0 to 1) of the sample lies. 0 for an empty sample.
pub fn percentile(sample: &[f64], share: f64) -> f64 {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// `median (smallest to largest)`.
pub fn summary(sample: &[f64], digits: usize) -> String {
    let (median, least, most) = (percentile(sample, 0.5), percentile(sample, 0.0), percentile(sample, 1.0));
    format!("{median:.digits$} ({least:.digits$} to {most:.digits$})")
}
