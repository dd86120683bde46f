//! What a command works with, and how it fails.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::Connect;
use super::general::General;
use super::output::Output;
use crate::client::Client;
use crate::client::ClientError;
use crate::client::HttpOptions;
use crate::client::HttpTransport;
use crate::client::Transport;
use crate::clock::Clock;
use crate::clock::SystemClock;
use crate::model::time::Time;

/// The exit code of a command, or why it failed.
pub type Outcome = Result<u8, Failure>;

/// An error to print, and the exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    /// The command's usual error code when absent.
    pub code: Option<u8>,
    /// Whether to name the command's help.
    pub hint: bool,
}

impl<T: Into<String>> From<T> for Failure {
    fn from(text: T) -> Self {
        Self { text: text.into(), code: None, hint: false }
    }
}

impl Failure {
    /// A wrong number of arguments or a wrong combination of flags.
    pub fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: None, hint: true }
    }
}

/// One run of one command.
pub struct Context {
    /// `herder` or `nomad`.
    pub program: String,
    /// All arguments, for messages that repeat them.
    pub args: Vec<String>,
    pub general: General,
    pub out: Output,
    connect: Arc<dyn Connect>,
    client: OnceCell<Client>,
}

impl Context {
    /// Nothing is connected yet.
    pub fn new(
        program: &str,
        args: Vec<String>,
        general: General,
        out: Output,
        connect: Arc<dyn Connect>,
    ) -> Self {
        Self { program: program.to_owned(), args, general, out, connect, client: OnceCell::new() }
    }

    /// What the rest of the program offers.
    pub fn connect(&self) -> &dyn Connect {
        &*self.connect
    }

    /// True if the command works straight on etcd: asked for by flag, or by the environment without an address.
    pub fn uses_etcd(&self) -> bool {
        if self.general.etcd_endpoints.is_some() {
            return true;
        }
        self.general.address.is_none() && !self.general.etcd().endpoints.is_empty()
    }

    /// The client of the API, connected at the first call.
    ///
    /// # Errors
    /// When the flags make no sense, or etcd cannot be reached.
    pub async fn client(&self) -> Result<&Client, Failure> {
        self.client.get_or_try_init(|| self.build_client()).await
    }

    async fn build_client(&self) -> Result<Client, Failure> {
        let failed = |why: &dyn std::fmt::Display| Failure::from(format!("Error initializing client: {why}"));
        let transport: Arc<dyn Transport> = if self.uses_etcd() {
            self.connect.in_process(&self.general.etcd()).await.map_err(|why| failed(&why))?
        } else {
            Arc::new(HttpTransport::new(&self.general.http_options()).map_err(|why| failed(&why))?)
        };
        Ok(Client::new(transport, self.general.scope()))
    }

    /// A client for another agent, with the same credentials. It gives up after `patience` without a connection.
    ///
    /// # Errors
    /// When the flags make no sense.
    pub fn client_at(
        &self,
        client: &Client,
        address: &str,
        patience: Duration,
    ) -> Result<Client, ClientError> {
        let given = self.general.http_options();
        let scheme = given.address.split_once("://").map_or("http", |(scheme, _)| scheme);
        let address = format!("{scheme}://{address}");
        let options = HttpOptions { address, connect_timeout: Some(patience), ..given };
        Ok(client.over(Arc::new(HttpTransport::new(&options)?)))
    }

    /// Now.
    pub fn now(&self) -> Time {
        SystemClock.now()
    }

    /// Now, as printed before lines of progress.
    pub fn stamp(&self) -> String {
        super::format::time(self.now())
    }

    /// Complains unless there are exactly this many arguments; `names` is their usage.
    ///
    /// # Errors
    /// Nomad's sentence about the arguments.
    pub fn expect_args(given: &[String], wanted: usize, names: &str) -> Result<(), Failure> {
        if given.len() == wanted {
            return Ok(());
        }
        Err(Failure::usage(match wanted {
            0 => "This command takes no arguments".to_owned(),
            1 => format!("This command takes one argument: {names}"),
            2 => format!("This command takes two arguments: {names}"),
            more => format!("This command takes {more} arguments: {names}"),
        }))
    }
}
