//! The blocks `artifact` and `template` of the configuration, as options of the node's hooks.

use std::time::Duration;

use super::RunError;
use crate::agent::hooks::ArtifactOptions;
use crate::agent::hooks::TemplateOptions;
use crate::config::ArtifactConfig;
use crate::config::TemplateConfig;
use crate::model::time::Span;

/// Units of sizes, as factors of bytes.
const UNITS: [(&str, u64); 14] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
];

pub(super) fn artifacts(config: &ArtifactConfig) -> Result<ArtifactOptions, RunError> {
    let size = |key: &str, text: &str| {
        bytes(text).ok_or_else(|| RunError::Setup(format!("client.artifact.{key}: {text:?} is no size")))
    };
    let timeout = |key: &str, span: Span| {
        if span < Span::ZERO {
            return Err(RunError::Setup(format!("client.artifact.{key} must not be negative")));
        }
        // Zero means that there is no limit.
        Ok(if span == Span::ZERO { Duration::MAX } else { span.to_std() })
    };
    let files = usize::try_from(config.decompression_file_count_limit).unwrap_or(usize::MAX);
    let names = config.set_environment_variables.split(',').map(str::trim).filter(|name| !name.is_empty());
    let env = names.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?))).collect();
    let unlimited = |bytes: u64| if bytes == 0 { u64::MAX } else { bytes };
    Ok(ArtifactOptions {
        http_read_timeout: timeout("http_read_timeout", config.http_read_timeout)?,
        http_max_bytes: unlimited(size("http_max_size", &config.http_max_size)?),
        gcs_timeout: timeout("gcs_timeout", config.gcs_timeout)?,
        git_timeout: timeout("git_timeout", config.git_timeout)?,
        s3_timeout: timeout("s3_timeout", config.s3_timeout)?,
        env,
        decompression_files: if files == 0 { usize::MAX } else { files },
        decompression_bytes: unlimited(size("decompression_size_limit", &config.decompression_size_limit)?),
        ..ArtifactOptions::default()
    })
}

pub(super) fn templates(config: &TemplateConfig) -> Result<TemplateOptions, RunError> {
    let mut options =
        TemplateOptions { disable_file_sandbox: config.disable_file_sandbox, ..TemplateOptions::default() };
    if let Some(denied) = &config.function_denylist {
        options.denied.clone_from(denied);
    }
    let (mut min, mut max) = options.wait;
    if let Some(span) = config.wait.min {
        min = span.to_std();
        max = max.max(min);
    }
    if let Some(span) = config.wait.max {
        max = span.to_std();
    }
    options.wait = (min, max);
    options.wait_bounds =
        (config.wait_bounds.min.map(|span| span.to_std()), config.wait_bounds.max.map(|span| span.to_std()));
    for (key, wait) in [("wait", &config.wait), ("wait_bounds", &config.wait_bounds)] {
        if let (Some(min), Some(max)) = (wait.min, wait.max)
            && min > max
        {
            return Err(RunError::Setup(format!("client.template.{key}: min is greater than max")));
        }
    }
    if min > max {
        return Err(RunError::Setup("client.template.wait: min is greater than max".to_owned()));
    }
    Ok(options)
}

/// `100GB`, `1.5 MiB`, `4096`
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = text[end..].trim();
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some((number * *factor as f64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("100GB", Some(100_000_000_000)),
            ("1.5 MiB", Some(1_572_864)),
            ("4096", Some(4096)),
            ("2k", Some(2000)),
            ("many", None),
            ("1 parsec", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        let config = ArtifactConfig { http_max_size: "big".to_owned(), ..ArtifactConfig::default() };
        assert!(
            artifacts(&config).unwrap_err().to_string().contains("client.artifact.http_max_size: \"big\"")
        );
    }

    #[test]
    fn zero_is_no_limit() {
        let config = ArtifactConfig {
            http_max_size: "0".to_owned(),
            s3_timeout: Span::ZERO,
            decompression_file_count_limit: 0,
            ..ArtifactConfig::default()
        };
        let options = artifacts(&config).unwrap();
        assert_eq!(options.http_max_bytes, u64::MAX);
        assert_eq!((options.s3_timeout, options.decompression_files), (Duration::MAX, usize::MAX));
    }

    #[test]
    fn quiet_times_are_checked() {
        let mut config = TemplateConfig::default();
        config.wait.min = Some(Span::from_secs(600));
        let options = templates(&config).unwrap();
        assert_eq!(options.wait, (Duration::from_secs(600), Duration::from_secs(600)));
        config.wait.max = Some(Span::from_secs(1));
        assert!(templates(&config).is_err());
        config.function_denylist = Some(vec!["file".to_owned()]);
        config.wait.max = None;
        assert_eq!(templates(&config).unwrap().denied, ["file"]);
    }
}
