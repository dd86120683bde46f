//! `job init`

use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::registry::Run;
use crate::cli::view::View;
use crate::client::ClientError;
use crate::client::escape;

const DEFAULT_FILE: &str = "example.nomad.hcl";
/// Owner and group may read and write.
const MODE: u32 = 0o660;
/// The variables that hold templates of job files, in the item `template`.
const TEMPLATES: &str = "nomad/job-templates";

/// Writes an example job file.
#[derive(clap::Args, Clone, Debug)]
pub struct InitJob {
    /// A short example without comments.
    #[arg(long)]
    short: bool,
    /// An example of a service mesh.
    #[arg(long)]
    connect: bool,
    /// The template to take instead of the example: the item "template" of the variable
    /// nomad/job-templates/<template>.
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<String>,
    /// Lists the templates there are.
    #[arg(long)]
    list_templates: bool,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for InitJob {
    async fn run(self, context: &Context) -> Outcome {
        let file = match self.args.as_slice() {
            [] => DEFAULT_FILE,
            [file] => file,
            _ => return Err(Failure::usage("This command takes no arguments or one: <filename>")),
        };
        if self.list_templates {
            return list(context).await;
        }
        let text = match (&self.template, self.connect, self.short) {
            (Some(name), ..) => template(context, name).await?,
            (None, true, true) => CONNECT_SHORT.to_owned(),
            (None, true, false) => CONNECT.to_owned(),
            (None, false, true) => SHORT.to_owned(),
            (None, false, false) => FULL.to_owned(),
        };
        let created = OpenOptions::new().write(true).create_new(true).mode(MODE).open(file);
        let mut created = created.map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => format!("Job '{file}' already exists"),
            _ => format!("Failed to write '{file}': {why}"),
        })?;
        created.write_all(text.as_bytes()).map_err(|why| format!("Failed to write '{file}': {why}"))?;
        context.out.line(format!("Example job file written to {file}"));
        Ok(0)
    }
}

/// Why templates cannot be had.
fn reason(why: &ClientError) -> String {
    match why {
        ClientError::Status { code: 501, .. } => {
            format!("templates are variables below {TEMPLATES}, and this server keeps no variables")
        }
        why => why.to_string(),
    }
}

/// The names of all templates.
async fn list(context: &Context) -> Outcome {
    let prefix = format!("{TEMPLATES}/");
    let answer = context.client().await?.get("/v1/vars", &[("prefix", &prefix)]).await;
    let answer =
        answer.map_err(|why| format!("Error retrieving job templates from the server: {}", reason(&why)))?;
    let paths = answer.value.as_array().into_iter().flatten().map(|variable| variable.text("Path"));
    let names: Vec<&str> = paths.map(|path| path.strip_prefix(&prefix).unwrap_or(path)).collect();
    if names.is_empty() {
        return Err(format!("No variables in {TEMPLATES}").into());
    }
    context
        .out
        .line(format!("Use {} job init -template=<template> with any of the following:", context.program));
    for name in names {
        context.out.line(format!("  {name}"));
    }
    Ok(0)
}

/// The text of a template.
async fn template(context: &Context, name: &str) -> Result<String, Failure> {
    let path = format!("/v1/var/{TEMPLATES}/{}", escape(name));
    let answer = context.client().await?.get(&path, &[]).await.map_err(|why| match why {
        ClientError::Status { code: 404, .. } => "Variable not found".to_owned(),
        why => format!("Error retrieving the job template {name:?} from the server: {}", reason(&why)),
    })?;
    let text = answer.value.pointer("/Items/template").and_then(serde_json::Value::as_str);
    let missing = || format!("The variable {TEMPLATES}/{name} has no item \"template\"");
    text.map(str::to_owned).ok_or_else(|| missing().into())
}

const SHORT: &str = include_str!("example-short.nomad.hcl");
const FULL: &str = include_str!("example.nomad.hcl");
const CONNECT_SHORT: &str = include_str!("example-connect-short.nomad.hcl");
const CONNECT: &str = include_str!("example-connect.nomad.hcl");
