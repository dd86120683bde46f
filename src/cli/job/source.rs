//! Reading a job file for `run`, `plan` and `validate`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::format::quoted;
use crate::cli::output::Output;
use crate::jobspec;
use crate::jobspec::Defaults;
use crate::jobspec::Diagnostics;
use crate::jobspec::Format;
use crate::jobspec::Parsed;
use crate::jobspec::Problem;
use crate::jobspec::Source;
use crate::jobspec::Validation;
use crate::jobspec::Variables;

/// Flags about the job file.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct SourceFlags {
    /// Read the file as JSON in the form of the API.
    #[arg(long)]
    pub json: bool,
    /// Whether values for undeclared variables are errors: true or false. Default = true
    #[arg(long, value_name = "bool", require_equals = true)]
    pub hcl2_strict: Option<String>,
    /// A value for a variable, 'name=value'. May be given several times.
    #[arg(long, value_name = "name=value", action = clap::ArgAction::Append)]
    pub var: Vec<String>,
    /// A file with values for variables. May be given several times.
    #[arg(long, value_name = "path", action = clap::ArgAction::Append)]
    pub var_file: Vec<String>,
    /// The Consul token to submit with the job.
    #[arg(long, value_name = "token", hide = true)]
    pub consul_token: Option<String>,
    /// The Consul namespace to submit with the job.
    #[arg(long, value_name = "namespace", hide = true)]
    pub consul_namespace: Option<String>,
    /// The Vault token to submit with the job.
    #[arg(long, value_name = "token", hide = true)]
    pub vault_token: Option<String>,
    /// The Vault namespace to submit with the job.
    #[arg(long, value_name = "namespace", hide = true)]
    pub vault_namespace: Option<String>,
}

/// A job as read from its file.
pub struct JobFile {
    pub parsed: Parsed,
    /// What is sent: only what the file says.
    pub wire: Value,
    /// What the server keeps about where the job came from.
    pub submission: Value,
    pub warnings: Vec<String>,
}

impl JobFile {
    /// Checks the job as far as that is possible without a server; returns warnings about what was filled in, too.
    pub fn validate(&self) -> Validation {
        let mut job = self.parsed.job.clone();
        let filled = jobspec::canonicalize(&mut job, &Defaults::default());
        let mut validation = jobspec::validate(&job);
        validation.warnings.splice(0..0, filled);
        validation
    }

    /// The lines of the file that the server's `text` complains about, marked, after an empty line. Empty when the text is
    /// about nothing in the file.
    pub fn drawings(&self, out: Output, text: &str) -> String {
        let problems: Vec<Problem> = self.validate().problems;
        let told: Vec<Problem> = problems
            .iter()
            .flat_map(Problem::leaves)
            .filter(|problem| text.contains(&problem.text))
            .cloned()
            .collect();
        let drawn = self.parsed.outline.diagnostics(&told).report(out.is_colored());
        if drawn.is_empty() { drawn } else { format!("\n\n{}", drawn.trim_end()) }
    }
}

impl SourceFlags {
    /// Reads and parses the file; `-` is standard input.
    ///
    /// # Errors
    /// With a report of every problem of the file.
    pub fn load(&self, context: &Context, path: &str) -> Result<JobFile, Failure> {
        if self.json && !(self.var.is_empty() && self.var_file.is_empty()) {
            return Err("Invalid job options: cannot use variables with JSON files.".into());
        }
        let text = read_source(context, path)?;
        if self.json && !text.trim_start().starts_with('{') {
            let why = "Error getting job struct: Error parsing job file from";
            return Err(format!("{why} {path}: expected a JSON object").into());
        }
        let variables = self.variables(context)?;
        let name = if path == "-" { "stdin" } else { path };
        let parsed = jobspec::parse(&Source { name, text: &text }, &variables)
            .map_err(|problems| self.refuse(context, path, &problems))?;
        let mut wire = parsed.raw.clone();
        for (name, flag, fallback) in [
            ("ConsulToken", &self.consul_token, "CONSUL_HTTP_TOKEN"),
            ("ConsulNamespace", &self.consul_namespace, ""),
            ("VaultToken", &self.vault_token, "VAULT_TOKEN"),
            ("VaultNamespace", &self.vault_namespace, ""),
        ] {
            let value = flag.clone().or_else(|| std::env::var(fallback).ok()).filter(|text| !text.is_empty());
            if let (Some(value), Some(job)) = (value, wire.as_object_mut()) {
                job.insert(name.to_owned(), value.into());
            }
        }
        let format = Format::of(&Source { name, text: &text });
        let submission = self.submission(&text, format, &variables);
        let warnings = parsed.warnings.iter().map(ToString::to_string).collect();
        Ok(JobFile { parsed, wire, submission, warnings })
    }

    fn variables(&self, context: &Context) -> Result<Variables, Failure> {
        let strict = match self.hcl2_strict.as_deref() {
            None => true,
            Some(text) => crate::cli::argv::parse_bool(text).ok_or_else(|| {
                Failure::from(format!("invalid boolean value {} for -hcl2-strict: parse error", quoted(text)))
            })?,
        };
        let mut flags = Vec::new();
        for pair in &self.var {
            // One without an equals sign means nothing, as in Nomad; that it is dropped is said.
            match pair.split_once('=') {
                Some((name, value)) => flags.push((name.to_owned(), value.to_owned())),
                None => context.out.warn(format!("-var {} is ignored: write 'name=value'", quoted(pair))),
            }
        }
        let mut files = Vec::new();
        for path in &self.var_file {
            let text = std::fs::read_to_string(path).map_err(|why| {
                format!("Error getting job struct: cannot read variables file {path}: {why}")
            })?;
            files.push((path.clone(), text));
        }
        let variables = Variables { files, flags, strict, filesystem: true, ..Variables::default() };
        Ok(variables.with_environment(std::env::vars()))
    }

    fn submission(&self, text: &str, format: Format, variables: &Variables) -> Value {
        let mut flags: BTreeMap<&str, &str> =
            variables.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        flags.extend(variables.flags.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let files: Vec<&str> = variables.files.iter().map(|(_, text)| text.as_str()).collect();
        json!({
            "Source": text,
            "Format": format.name(),
            "VariableFlags": flags,
            "Variables": files.join("\n"),
        })
    }

    fn refuse(&self, context: &Context, path: &str, problems: &Diagnostics) -> Failure {
        let lines = problems.to_string();
        let report = problems.report(context.out.is_colored());
        format!(
            "Error getting job struct: Error parsing job file from {path}:\n{lines}\n\n{}",
            report.trim_end()
        )
        .into()
    }
}

fn read_source(context: &Context, path: &str) -> Result<String, Failure> {
    let failed = |why: String| {
        Failure::from(format!("Error getting job struct: Error getting jobfile from {}: {why}", quoted(path)))
    };
    if path == "-" {
        let bytes = context.out.read_stdin().map_err(|why| failed(why.to_string()))?;
        return String::from_utf8(bytes).map_err(|why| failed(why.to_string()));
    }
    std::fs::read_to_string(path).map_err(|why| {
        let full = std::path::absolute(Path::new(path)).unwrap_or_else(|_| path.into());
        failed(match why.kind() {
            std::io::ErrorKind::NotFound => {
                format!("source path error: stat {}: no such file or directory", full.display())
            }
            _ => why.to_string(),
        })
    })
}
