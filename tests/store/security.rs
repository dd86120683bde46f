//! TLS, client certificates, users and roles of etcd.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use futures::StreamExt;
use herder::store::ListOptions;
use herder::store::Op;
use herder::store::Range;
use herder::store::Store;
use herder::store::StoreError;
use herder::store::Txn;
use herder::store::etcd::EtcdOptions;
use herder::store::etcd::EtcdStore;

use crate::etcd::Etcd;

/// Makes an authority, and certificates that it signs for `server` and `client`.
fn make_certificates(directory: &Path) {
    const SCRIPT: &str = "
        set -e
        key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        openssl req -x509 $key -keyout ca.key -out ca.pem -days 30 -subj /CN=ca
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth' > extensions
        for name in server client; do
            openssl req $key -keyout $name.key -out $name.csr -subj /CN=$name
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \\
                -extfile extensions -out $name.pem
        done";
    let output =
        Command::new("sh").args(["-c", SCRIPT]).current_dir(directory).output().expect("sh is there");
    assert!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
}

fn quick(etcd: &Etcd) -> EtcdOptions {
    EtcdOptions {
        endpoints: etcd.endpoints(),
        retry_timeout: Duration::from_secs(1),
        probe_key: "/herder/meta".to_owned(),
        ..EtcdOptions::default()
    }
}

async fn refusal(options: EtcdOptions) -> StoreError {
    EtcdStore::connect(options).await.err().expect("the connection is refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_needs_the_right_authority_and_a_certificate() {
    let directory = tempfile::tempdir().unwrap();
    make_certificates(directory.path());
    let file = |name: &str| -> PathBuf { directory.path().join(name) };
    let flag = |name: &str, file: PathBuf| format!("--{name}={}", file.display());
    let flags = [
        flag("cert-file", file("server.pem")),
        flag("key-file", file("server.key")),
        flag("trusted-ca-file", file("ca.pem")),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::with_flags(1, "https", &flags);
    let good = || EtcdOptions {
        ca_file: Some(file("ca.pem")),
        cert_file: Some(file("client.pem")),
        key_file: Some(file("client.key")),
        ..quick(&etcd)
    };
    let store = EtcdStore::connect(good()).await.unwrap();
    let written = store.commit(Txn::default().and_then(Op::put("/herder/x", "x"))).await.unwrap().revision;
    let mut watch = store.watch(Range::Prefix("/herder/".into()), written).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, written);
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    // The port alone is enough to know that TLS is meant.
    let bare = good().endpoints[0].strip_prefix("https://").unwrap().to_owned();
    EtcdStore::connect(EtcdOptions { endpoints: vec![bare], ..good() }).await.unwrap();

    let stranger = refusal(EtcdOptions { ca_file: None, ..good() }).await;
    assert!(stranger.to_string().contains("certificate"), "{stranger}");
    let anonymous = refusal(EtcdOptions { cert_file: None, key_file: None, ..good() }).await;
    assert!(matches!(anonymous, StoreError::Unavailable(_)), "{anonymous}");
    let other_name = refusal(EtcdOptions { server_name: Some("elsewhere.example".into()), ..good() }).await;
    assert!(other_name.to_string().contains("certificate"), "{other_name}");
    let half = refusal(EtcdOptions { key_file: None, ..good() }).await;
    assert!(half.to_string().contains("key_file"), "{half}");
    let missing = refusal(EtcdOptions { ca_file: Some(file("none.pem")), ..good() }).await;
    assert!(missing.to_string().contains("none.pem"), "{missing}");
    let plain = good().endpoints[0].replace("https", "http");
    let plain = refusal(EtcdOptions { endpoints: vec![plain], ..good() }).await;
    assert!(plain.to_string().contains("https://"), "{plain}");
}

/// A user `root`, and a user `agent` who may use `/herder/agent/` only.
async fn make_users(etcd: &Etcd) {
    let mut admin = etcd_client::Client::connect(etcd.endpoints(), None).await.unwrap();
    admin.role_add("agent").await.unwrap();
    let own = etcd_client::Permission::read_write("/herder/agent/").with_prefix();
    admin.role_grant_permission("agent", own).await.unwrap();
    for (user, role) in [("root", "root"), ("agent", "agent")] {
        if user == role && role == "root" {
            admin.role_add("root").await.unwrap();
        }
        admin.user_add(user, format!("{user}-secret"), None).await.unwrap();
        admin.user_grant_role(user, role).await.unwrap();
    }
    admin.auth_enable().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_may_do_what_their_roles_allow() {
    let mut etcd = Etcd::start();
    let options = |user: &str, password: &str| EtcdOptions {
        user: Some(user.into()),
        password: Some(password.into()),
        probe_key: "/herder/agent/x".into(),
        ..quick(&etcd)
    };
    // As long as etcd checks nobody, a configured user does no harm.
    EtcdStore::connect(options("root", "root-secret")).await.unwrap().revision().await.unwrap();
    make_users(&etcd).await;
    assert!(matches!(refusal(options("root", "wrong")).await, StoreError::Denied(_)));
    assert!(matches!(refusal(options("nobody", "x")).await, StoreError::Denied(_)));
    let anonymous = EtcdStore::connect(quick(&etcd)).await.unwrap();
    assert!(matches!(anonymous.revision().await, Err(StoreError::Denied(_))));

    let root = EtcdStore::connect(options("root", "root-secret")).await.unwrap();
    let agent = EtcdStore::connect(options("agent", "agent-secret")).await.unwrap();
    let put = |key: &str| Txn::default().and_then(Op::put(key, "x"));
    let other = Range::Prefix("/herder/other/".into());
    root.commit(put("/herder/other/x")).await.unwrap();
    assert!(matches!(agent.commit(put("/herder/other/x")).await, Err(StoreError::Denied(_))));
    let denied = agent.list(other.clone(), ListOptions::default()).await;
    assert!(matches!(denied, Err(StoreError::Denied(_))));
    let denied = agent.watch(other, 1).await.err();
    assert!(matches!(denied, Some(StoreError::Denied(_))), "{denied:?}");
    let written = agent.commit(put("/herder/agent/x")).await.unwrap().revision;
    assert_eq!(agent.revision().await.unwrap(), written);
    let mut watch = agent.watch(Range::Prefix("/herder/agent/".into()), written).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, written);

    // A restarted member has forgotten all logins.
    etcd.restart(0);
    assert!(etcd.wait_healthy(0));
    let lease = agent.grant(Duration::from_secs(60)).await.unwrap();
    agent.keep_alive(lease).await.unwrap();
    let again = loop {
        match agent.commit(put("/herder/agent/y")).await {
            Ok(outcome) => break outcome.revision,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    };
    let mut watch = agent.watch(Range::Prefix("/herder/agent/".into()), again).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, again);
}
