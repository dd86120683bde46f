use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use warp::Filter;

use super::*;
use crate::agent::hooks::HookError;
use crate::model::time::Span;

struct NoExec;

#[async_trait]
impl TaskExec for NoExec {
    async fn exec(&self, _: &str, _: &[String], _: Duration) -> Result<(i32, Vec<u8>), HookError> {
        Err(HookError::fatal("Task not running"))
    }
}

fn check(kind: &str) -> ServiceCheck {
    ServiceCheck { kind: kind.to_owned(), path: "/health".to_owned(), ..ServiceCheck::default() }
}

async fn ask(check: &ServiceCheck, port: u16) -> Outcome {
    let target = Target { address: "127.0.0.1".to_owned(), port: port.into() };
    let timeout = if check.timeout == Span::ZERO { Duration::from_secs(10) } else { check.timeout.to_std() };
    Probe::new(check, Ok(target), "web").ask(&NoExec, timeout).await
}

/// A port on which nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// Answers every connection with `answer`; the requests come out of the channel.
async fn server(answer: &'static str) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while !sender.is_closed() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let _ = sender.send(String::from_utf8_lossy(&request[..length]).into_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (port, requests)
}

#[tokio::test]
async fn tcp_checks_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(ask(&check("tcp"), port).await, Outcome::passed(0, "nomad: tcp ok"));
    drop(listener);
    let refused = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(ask(&check("tcp"), port).await, Outcome::failed(0, refused));
}

#[tokio::test]
async fn http_checks_look_at_the_status() {
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", Outcome::passed(200, "nomad: http ok")),
        ("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nhi", Outcome::passed(201, "hi")),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", Outcome::failed(404, "gone")),
        ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Outcome::failed(503, "")),
    ] {
        let (port, _requests) = server(answer).await;
        assert_eq!(ask(&check("http"), port).await, expected);
    }
    let port = closed_port().await;
    let url = format!("http://127.0.0.1:{port}/health");
    let refused = format!("Get \"{url}\": dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(ask(&check("http"), port).await, Outcome::failed(0, refused));
}

#[tokio::test]
async fn http_checks_send_what_the_job_says() {
    let (port, mut requests) = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    let header = BTreeMap::from([
        ("Host".to_owned(), vec!["example.com".to_owned()]),
        ("X-A".to_owned(), vec!["1".to_owned(), "2".to_owned()]),
    ]);
    let check = ServiceCheck {
        method: "post".into(),
        body: "ping".into(),
        path: "h?x=1".into(),
        header,
        ..check("http")
    };
    assert!(ask(&check, port).await.passed);
    let request = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /h?x=1 HTTP/1.1\r\n"), "{request}");
    for line in ["host: example.com\r\n", "x-a: 1\r\n", "x-a: 2\r\n"] {
        assert!(request.contains(line), "{request}");
    }
    assert!(!request.contains("127.0.0.1") && request.ends_with("\r\n\r\nping"), "{request}");
}

#[tokio::test]
async fn a_server_that_says_nothing_fails_the_check_after_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let check = ServiceCheck { timeout: Span::from_millis(50), ..check("http") };
    let outcome = ask(&check, port).await;
    assert!(!outcome.passed && outcome.output.contains("context deadline exceeded"), "{outcome:?}");
}

#[tokio::test]
async fn grpc_checks_ask_the_health_service() {
    let serving = |answer: &'static [u8]| {
        let route = warp::path!("grpc.health.v1.Health" / "Check").and(warp::body::bytes()).map(
            move |body: bytes::Bytes| {
                // The name comes as field 1 of the message.
                let known = body.ends_with(b"\x0a\x03svc");
                let answer = if known { answer } else { &[][..] };
                warp::http::Response::builder()
                    .header("content-type", "application/grpc")
                    .body(bytes::Bytes::from_static(answer))
            },
        );
        async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(warp::serve(route).incoming(listener).run());
            port
        }
    };
    let port = serving(&[0, 0, 0, 0, 2, 8, 1]).await;
    let check = ServiceCheck { grpc_service: "svc".into(), ..check("grpc") };
    assert_eq!(ask(&check, port).await, Outcome::passed(0, "nomad: grpc ok"));
    let other = ServiceCheck { grpc_service: "nope".into(), ..check.clone() };
    assert!(!ask(&other, port).await.passed);
    let port = serving(&[0, 0, 0, 0, 2, 8, 2]).await;
    assert!(!ask(&check, port).await.passed);
}

#[tokio::test]
async fn what_cannot_be_asked_fails_with_its_reason() {
    let probe = Probe::new(&check("tcp"), Err("invalid port \"x\": port label not found".to_owned()), "web");
    let outcome = probe.ask(&NoExec, Duration::from_secs(1)).await;
    assert_eq!(outcome, Outcome::failed(0, "invalid port \"x\": port label not found"));
    assert_eq!(ask(&check("script"), 0).await, Outcome::failed(0, "Task not running"));
    assert!(ask(&check("udp"), 0).await.output.contains("invalid check type (\"udp\")"));
}

mod grpc_over_tls;
