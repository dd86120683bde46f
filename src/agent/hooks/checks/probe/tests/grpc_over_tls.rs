//! gRPC checks against a real health service behind TLS.

use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::Poll;

use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Request;
use tonic::Response;
use tonic::Status;
use tonic::transport::server::Connected;

use super::*;
use crate::drivers::plugin::proto::grpc::health::v1::HealthCheckRequest;
use crate::drivers::plugin::proto::grpc::health::v1::HealthCheckResponse;
use crate::drivers::plugin::proto::grpc::health::v1::health_check_response::ServingStatus;
use crate::drivers::plugin::proto::grpc::health::v1::health_server::Health;
use crate::drivers::plugin::proto::grpc::health::v1::health_server::HealthServer;

/// Where the certificates are, for the process that trusts their authority.
const CERTIFICATES: &str = "HERDER_TEST_CERTIFICATES";
const NAME: &str = "health.test";

struct Wellbeing;

#[tonic::async_trait]
impl Health for Wellbeing {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = match request.into_inner().service.as_str() {
            "" | "well" => ServingStatus::Serving,
            "ill" => ServingStatus::NotServing,
            _ => return Err(Status::not_found("unknown service")),
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }
}

/// A connection in a form that tonic takes.
struct Connection(TlsStream<TcpStream>);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// An authority, and a certificate for [`NAME`] that it signed.
fn make_certificates(directory: &Path) {
    let script = format!(
        "set -e
        key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.pem -days 30 -subj /CN=ca
        openssl req $key -keyout server.key -out server.csr -subj /CN=server
        echo 'subjectAltName=DNS:{NAME}' > names
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
            -extfile names -out server.pem"
    );
    let output = Command::new("sh").args(["-c", &script]).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

/// Serves the health service; the names that clients asked for are collected.
async fn serve(certificates: &Path) -> (u16, Arc<Mutex<Vec<String>>>) {
    install_tls();
    let chain = CertificateDer::pem_file_iter(certificates.join("server.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.join("server.key")).unwrap();
    let mut config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    let connections =
        futures::stream::unfold((listener, acceptor, seen), |(listener, acceptor, seen)| async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Clients that do not like the certificate go away.
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let name = stream.get_ref().1.server_name().unwrap_or_default().to_owned();
                seen.lock().push(name);
                return Some((Ok::<_, io::Error>(Connection(stream)), (listener, acceptor, seen)));
            }
        });
    let server = tonic::transport::Server::builder().add_service(HealthServer::new(Wellbeing));
    tokio::spawn(server.serve_with_incoming(connections));
    (port, names)
}

fn secure(service: &str) -> ServiceCheck {
    ServiceCheck { grpc_service: service.into(), grpc_use_tls: true, ..check("grpc") }
}

#[tokio::test]
async fn a_certificate_counts_unless_the_job_says_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let (port, names) = serve(directory.path()).await;
    for strict in [secure("well"), ServiceCheck { tls_server_name: NAME.into(), ..secure("well") }] {
        let outcome = ask(&strict, port).await;
        assert!(!outcome.passed && outcome.output.contains("certificate"), "{outcome:?}");
    }
    assert!(names.lock().is_empty());
    let lax = |service: &str| ServiceCheck { tls_skip_verify: true, ..secure(service) };
    assert_eq!(ask(&lax("well"), port).await, Outcome::passed(0, "nomad: grpc ok"));
    assert_eq!(ask(&lax(""), port).await, Outcome::passed(0, "nomad: grpc ok"));
    assert!(!ask(&lax("ill"), port).await.passed);
    assert_eq!(ask(&lax("who"), port).await, Outcome::failed(0, "grpc: unknown service"));
    let named = ServiceCheck { tls_server_name: "other.test".into(), ..lax("well") };
    assert_eq!(ask(&named, port).await, Outcome::passed(0, "nomad: grpc ok"));
    assert_eq!(names.lock().last().unwrap(), "other.test", "the server is told which name is meant");
    let plain = ServiceCheck { grpc_use_tls: false, ..lax("well") };
    assert!(!ask(&plain, port).await.passed, "it speaks TLS only");
}

/// Runs itself again in a process that trusts an authority of its own.
#[tokio::test]
async fn a_trusted_certificate_must_be_for_the_name_in_the_job() {
    let Some(certificates) = std::env::var_os(CERTIFICATES).map(PathBuf::from) else {
        let directory = tempfile::tempdir().unwrap();
        make_certificates(directory.path());
        let name = "agent::hooks::checks::probe::tests::grpc_over_tls::\
                    a_trusted_certificate_must_be_for_the_name_in_the_job";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CERTIFICATES, directory.path())
            .env("SSL_CERT_FILE", directory.path().join("ca.pem"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    };
    let (port, names) = serve(&certificates).await;
    let named = |name: &str| ServiceCheck { tls_server_name: name.into(), ..secure("well") };
    assert_eq!(ask(&named(NAME), port).await, Outcome::passed(0, "nomad: grpc ok"));
    assert_eq!(*names.lock(), [NAME]);
    for other in ["other.test", ""] {
        let outcome = ask(&named(other), port).await;
        assert!(!outcome.passed && outcome.output.contains("certificate"), "{other:?}: {outcome:?}");
    }
}
