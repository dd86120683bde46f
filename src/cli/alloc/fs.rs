//! `alloc fs`

use serde_json::Value;

use super::Reach;
use super::find;
use super::of_job;
use super::tail::Tail;
use crate::cli::context::Context;
use crate::cli::context::Failure;
use crate::cli::context::Outcome;
use crate::cli::format;
use crate::cli::output::Table;
use crate::cli::registry::Run;
use crate::cli::view::View;
use crate::cli::view::rows;
use crate::client::FrameDecoder;

/// Looks into the directory of an allocation.
#[derive(clap::Args, Clone, Debug)]
pub struct AllocFs {
    /// Show sizes in bytes.
    #[arg(long = "H")]
    bytes: bool,
    /// Show full ids.
    #[arg(long)]
    verbose: bool,
    /// The argument is a job: take one of its running allocations.
    #[arg(long)]
    job: bool,
    /// Show what is known of the file instead of its contents.
    #[arg(long)]
    stat: bool,
    /// Go on as the file grows.
    #[arg(long)]
    f: bool,
    /// Show the end only.
    #[arg(long)]
    tail: bool,
    /// With -tail: how many lines.
    #[arg(long, value_name = "lines")]
    n: Option<i64>,
    /// With -tail: how many bytes.
    #[arg(long, value_name = "bytes")]
    c: Option<i64>,
    #[arg(hide = true)]
    args: Vec<String>,
}

impl Run for AllocFs {
    async fn run(self, context: &Context) -> Outcome {
        let (wanted, path) = match self.args.as_slice() {
            [wanted] => (wanted, "/"),
            [wanted, path] => (wanted, path.as_str()),
            [] if self.job => return Err(Failure::usage("A job ID is required")),
            [] => return Err(Failure::usage("An allocation ID is required")),
            _ => {
                return Err(Failure::usage("This command takes one or two arguments: <allocation> [<path>]"));
            }
        };
        let (client, whole) = if self.job {
            of_job(context, wanted).await?
        } else {
            find(context, wanted, self.verbose).await?
        };
        let alloc = whole.text("ID");
        let stat = client.get(&format!("/v1/client/fs/stat/{alloc}"), &[("path", path)]).await;
        let stat = stat.map_err(|why| why.to_string())?.value;
        if self.stat {
            let mut table = Table::new(&["Mode", "Size", "Modified Time", "Content Type", "Name"]);
            table.row([
                stat.text("FileMode").to_owned(),
                self.size(&stat),
                modified(&stat),
                stat.text("ContentType").to_owned(),
                name(&stat),
            ]);
            context.out.line(table.render());
            return Ok(0);
        }
        if stat.flag("IsDir") {
            let list = client.get(&format!("/v1/client/fs/ls/{alloc}"), &[("path", path)]).await;
            let list = list.map_err(|why| format!("Error listing alloc dir: {why}"))?.value;
            let mut table = Table::new(&["Mode", "Size", "Modified Time", "Name"]);
            for file in rows(&list) {
                table.row([file.text("FileMode").to_owned(), self.size(file), modified(file), name(file)]);
            }
            context.out.line(table.render());
            return Ok(0);
        }
        let reach = Reach::of(context, &client, &whole).await;
        self.contents(context, &reach, alloc, path).await
    }
}

impl AllocFs {
    fn size(&self, file: &Value) -> String {
        if self.bytes { file.int("Size").to_string() } else { format::size(file.int("Size")) }
    }

    async fn contents(&self, context: &Context, reach: &Reach, alloc: &str, path: &str) -> Outcome {
        let failed = |why: &dyn std::fmt::Display| Failure::from(format!("Error reading file: {why}"));
        if !self.f && !self.tail {
            let route = format!("/v1/client/fs/cat/{alloc}");
            let mut body = reach.stream(&route, &[("path", path)]).await.map_err(|why| failed(&why))?;
            while let Some(piece) = body.next().await {
                context.out.raw(&piece.map_err(|why| failed(&why))?);
            }
            return Ok(0);
        }
        let tail = Tail::of(self.tail, self.n, self.c).map_err(|why| failed(&why.text))?;
        let offset = tail.offset.unwrap_or(0).to_string();
        let query = [
            ("path", path),
            ("follow", if self.f { "true" } else { "false" }),
            ("origin", if tail.offset.is_some() { "end" } else { "start" }),
            ("offset", &offset),
        ];
        let route = format!("/v1/client/fs/stream/{alloc}");
        let mut body = reach.stream(&route, &query).await.map_err(|why| failed(&why))?;
        let mut decoder = FrameDecoder::default();
        let mut window = tail.window();
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|why| failed(&why))?;
            for frame in decoder.push(&piece).map_err(|why| failed(&why))? {
                context.out.raw(&window.take(frame.data, self.f));
            }
        }
        context.out.raw(&window.rest());
        Ok(0)
    }
}

fn name(file: &Value) -> String {
    format!("{}{}", file.text("Name"), if file.flag("IsDir") { "/" } else { "" })
}

fn modified(file: &Value) -> String {
    format::time(format::parse_time(file.field("ModTime")))
}
