//! `job validate`

use serde_json::json;

use super::print_warnings;
use super::run::written;
use super::source::JobFile;
use super::source::SourceFlags;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::output::Output;
use crate::cli::output::Style;
use crate::cli::registry::Run;
use crate::cli::view::View;
use crate::client::ClientError;

/// Checks a job file, with the server's help where one is reachable.
#[derive(clap::Args, Clone, Debug)]
pub struct ValidateJob {
    #[command(flatten)]
    source: SourceFlags,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for ValidateJob {
    async fn run(self, context: &Context) -> Outcome {
        Context::expect_args(&self.args, 1, "<path>")?;
        let file = self.source.load(context, &self.args[0])?;
        let out = context.out;
        let client = context.client().await?.in_region(&written(&file.wire, "Region"));
        let client = client.in_namespace(&written(&file.wire, "Namespace"));
        let request = json!({ "Job": file.wire });
        match client.put("/v1/validate/job", &[], &request).await {
            Ok(answer) => {
                let error = answer.value.text("Error").trim();
                if !error.is_empty() {
                    return Err(refusal(&file, out, error));
                }
                print_warnings(out, &file.warnings, &answer.value);
            }
            Err(ClientError::Transport { .. }) => {
                let text = "Driver configuration not validated since connection to Nomad agent couldn't be established.";
                out.line(out.paint(Style::BoldYellow, &format!("{text}\n")));
                let found = file.validate();
                if let Some(error) = found.error_text() {
                    return Err(refusal(&file, out, error.trim()));
                }
                print_warnings(out, &file.warnings, &json!({"Warnings": found.warnings_text()}));
            }
            Err(why) => return Err(format!("Error validating job: {why}").into()),
        }
        out.line(out.paint(Style::BoldGreen, "Job validation successful"));
        Ok(0)
    }
}

/// What is wrong, as scripts know it, and then for people with the lines of the file.
fn refusal(file: &JobFile, out: Output, error: &str) -> Failure {
    let heading = out.paint(Style::BoldRed, "Job validation errors:");
    format!("{heading}\n{error}{}", file.drawings(out, error)).into()
}
