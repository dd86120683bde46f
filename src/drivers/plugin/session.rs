//! A command inside a plugin's task with somebody at the other end.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::drivers::session::ExecRequest;
use crate::drivers::session::ExecSession;
use crate::drivers::session::SessionEnds;
use crate::model::exec::ExecInput;
use crate::model::exec::ExecOutput;

use super::proto::hashicorp::nomad::plugins::drivers::proto;
use super::proto::hashicorp::nomad::plugins::drivers::proto::driver_client::DriverClient;
use super::proto::hashicorp::nomad::plugins::drivers::proto::exec_task_streaming_request::Setup;
use super::proto::hashicorp::nomad::plugins::drivers::proto::exec_task_streaming_request::TerminalSize;

type Request = proto::ExecTaskStreamingRequest;
type Answer = proto::ExecTaskStreamingResponse;

/// Messages to the plugin that may wait.
const AHEAD: usize = 16;

/// Starts the command. It is ended by the plugin when the session's output is dropped.
///
/// # Errors
/// What the plugin says.
pub async fn open(
    mut driver: DriverClient<Channel>,
    task: &str,
    request: &ExecRequest,
) -> Result<ExecSession, Status> {
    let (session, SessionEnds { mut input, output }) = ExecSession::pair();
    let (requests, sent) = mpsc::channel(AHEAD);
    let setup = Setup { task_id: task.to_owned(), command: request.command.clone(), tty: request.tty };
    let first = Request { setup: Some(setup), ..Request::default() };
    requests.send(first).await.map_err(|_| Status::internal("the first message could not be sent"))?;
    tokio::spawn(async move {
        while let Some(input) = input.recv().await {
            // Fails once the command has ended: what is still typed has no addressee.
            if requests.send(written(input)).await.is_err() {
                return;
            }
        }
        // The person has gone, but may still be reading: the stream of requests stays open as long as the other.
        requests.closed().await;
    });
    let answers = driver.exec_task_streaming(ReceiverStream::new(sent)).await?.into_inner();
    tokio::spawn(pass_on(answers, output));
    Ok(session)
}

fn written(input: ExecInput) -> Request {
    match input {
        ExecInput::Data(data) => {
            Request { stdin: Some(proto::StreamPart { data, close: false }), ..Request::default() }
        }
        ExecInput::Close => {
            let end = proto::StreamPart { data: Vec::new(), close: true };
            Request { stdin: Some(end), ..Request::default() }
        }
        ExecInput::Resize { rows, columns } => {
            let size = TerminalSize { height: i32::from(rows), width: i32::from(columns) };
            Request { tty_size: Some(size), ..Request::default() }
        }
    }
}

/// Hands on what the command says until it has ended or nobody listens.
async fn pass_on(mut answers: Streaming<Answer>, output: mpsc::Sender<ExecOutput>) {
    loop {
        let answer = tokio::select! {
            answer = answers.message() => answer,
            () = output.closed() => return,
        };
        // Without an exit the session ends as lost.
        let Ok(Some(answer)) = answer else { return };
        let said = [
            answer.stdout.map(|part| ExecOutput::Stdout(part.data)),
            answer.stderr.map(|part| ExecOutput::Stderr(part.data)),
        ];
        let exited = answer.exited.then(|| ExecOutput::Exited(answer.result.unwrap_or_default().exit_code));
        for message in said.into_iter().flatten().filter(|said| !is_empty(said)).chain(exited) {
            if output.send(message).await.is_err() {
                return;
            }
        }
        if answer.exited {
            return;
        }
    }
}

fn is_empty(said: &ExecOutput) -> bool {
    matches!(said, ExecOutput::Stdout(data) | ExecOutput::Stderr(data) if data.is_empty())
}
