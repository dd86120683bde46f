//! Buckets and logins.

use super::*;

/// A store that speaks as much of S3's protocol as the getter needs; the credentials decide who may read.
mod bucket {
    use std::collections::BTreeMap;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::sync::Mutex;

    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;
    use warp::Filter;
    use warp::http::Response;
    use warp::http::StatusCode;

    pub(super) struct Store {
        pub(super) address: SocketAddr,
        /// Path and query, and the header `Authorization`.
        pub(super) asked: Arc<Mutex<Vec<(String, String)>>>,
        task: JoinHandle<()>,
    }

    impl Drop for Store {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    fn listing(objects: &BTreeMap<&'static str, &'static str>, prefix: &str) -> String {
        let found = objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let entries: String = found
            .map(|(key, content)| {
                format!(
                    "<Contents><Key>{key}</Key><LastModified>2023-01-01T00:00:00.000Z</LastModified>\
                     <ETag>&quot;e&quot;</ETag><Size>{}</Size></Contents>",
                    content.len()
                )
            })
            .collect();
        format!(
            "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        )
    }

    pub(super) async fn store(objects: &[(&'static str, &'static str)]) -> Store {
        let objects: BTreeMap<_, _> = objects.iter().copied().collect();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let answer = move |path: warp::path::FullPath, query: String, authorization: Option<String>| {
            let authorization = authorization.unwrap_or_default();
            seen.lock().unwrap().push((format!("{}?{query}", path.as_str()), authorization.clone()));
            let of = |status: StatusCode, body: String| {
                Response::builder()
                    .status(status)
                    .header("ETag", "\"e\"")
                    .header("Last-Modified", "Sun, 01 Jan 2023 00:00:00 GMT")
                    .body(body)
                    .unwrap()
            };
            let key =
                path.as_str().trim_start_matches("/private").trim_start_matches("/b").trim_start_matches('/');
            if path.as_str().starts_with("/private") && !authorization.contains("Credential=id/") {
                return of(StatusCode::FORBIDDEN, String::new());
            }
            if query.contains("list-type=2") {
                let prefix =
                    query.split('&').find_map(|part| part.strip_prefix("prefix=")).unwrap_or_default();
                return of(StatusCode::OK, listing(&objects, &prefix.replace("%2F", "/")));
            }
            match objects.get(key) {
                Some(content) => of(StatusCode::OK, (*content).to_owned()),
                None => of(StatusCode::NOT_FOUND, String::new()),
            }
        };
        let query = warp::query::raw().or(warp::any().map(String::new)).unify();
        let route = warp::path::full().and(query).and(warp::header::optional("authorization")).map(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(warp::serve(route).incoming(listener).run());
        Store { address, asked, task }
    }
}

#[tokio::test]
async fn objects_and_directories_come_from_buckets() {
    let store =
        bucket::store(&[("a/one.txt", "1"), ("a/sub/two.txt", "2"), ("ab", "no"), ("x.txt", "alone")]).await;
    let alloc = Alloc::new();
    let url = |path: &str| format!("s3::http://{}/b/{path}", store.address);
    alloc.fetch(artifact(&url("x.txt"))).await.unwrap();
    assert_eq!(alloc.read("local/x.txt"), "alone");
    let file =
        Artifact { getter_mode: "file".into(), relative_dest: "local/y".into(), ..artifact(&url("x.txt")) };
    alloc.fetch(file).await.unwrap();
    assert_eq!(alloc.read("local/y"), "alone");
    for (mode, destination) in [("any", "local/d"), ("dir", "local/e")] {
        let directory =
            Artifact { getter_mode: mode.into(), relative_dest: destination.into(), ..artifact(&url("a")) };
        alloc.fetch(directory).await.unwrap();
        assert_eq!(alloc.read(&format!("{destination}/one.txt")), "1");
        assert_eq!(alloc.read(&format!("{destination}/sub/two.txt")), "2");
    }
    let bad = with_options(&url("x.txt"), &[("checksum", "md5:900150983cd24fb0d6963f7d28e17f72")]);
    assert!(alloc.fetch(bad).await.unwrap_err().contains("Checksums did not match for x.txt"));
    let error = alloc.fetch(artifact(&url("nope"))).await.unwrap_err();
    assert!(error.ends_with("no object at \"nope\" in the bucket"), "{error}");
    let small = ArtifactOptions { http_max_bytes: 2, ..ArtifactOptions::default() };
    let error = alloc.fetch_with(artifact(&url("x.txt")), small).await.unwrap_err();
    assert!(error.message.contains("download is larger than 2 bytes"), "{error}");
    assert_eq!(std::fs::read_dir(alloc.dirs.task.join("tmp")).unwrap().count(), 0);
}

#[tokio::test]
async fn private_objects_need_a_signature() {
    let store = bucket::store(&[("x.txt", "secret")]).await;
    let alloc = Alloc::new();
    let url = format!("s3::http://{}/private/x.txt", store.address);
    alloc.fetch(artifact(&url)).await.unwrap_err();
    let keys = [
        ("aws_access_key_id", "id"),
        ("aws_access_key_secret", "key"),
        ("region", "eu-north-1"),
        ("version", "7"),
    ];
    alloc.fetch(with_options(&url, &keys)).await.unwrap();
    assert_eq!(alloc.read("local/x.txt"), "secret");
    let (asked, authorization) = store.asked.lock().unwrap().last().cloned().unwrap();
    assert!(asked.contains("versionId=7") && !asked.contains("key"), "{asked}");
    assert!(authorization.contains("/eu-north-1/s3/aws4_request"), "{authorization}");

    let env = BTreeMap::from([
        ("AWS_ACCESS_KEY_ID".to_owned(), "id".to_owned()),
        ("AWS_SECRET_ACCESS_KEY".to_owned(), "key".to_owned()),
    ]);
    let options = ArtifactOptions { env, ..ArtifactOptions::default() };
    let elsewhere = Artifact { relative_dest: "local/env".into(), ..artifact(&url) };
    alloc.fetch_with(elsewhere, options).await.unwrap();
    assert_eq!(alloc.read("local/env/x.txt"), "secret");
}

#[tokio::test]
async fn objects_of_google_are_plain_downloads() {
    let server = Server::file(b"object").await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&format!("gcs::{}", server.url("storage/v1/bucket/dir/o.txt")))).await.unwrap();
    assert_eq!(alloc.read("local/o.txt"), "object");
    assert!(server.requests.lock().unwrap()[0].starts_with("GET /bucket/dir/o.txt HTTP/1.1"));
    let google = Url::parse("https://www.googleapis.com/storage/v1/b/o").unwrap();
    assert_eq!(gcs_object(&google).unwrap().as_str(), "https://storage.googleapis.com/b/o");
    let error = alloc.fetch(artifact("gcs::http://127.0.0.1:1/storage/v1/bucket")).await.unwrap_err();
    assert!(error.contains("URL is not a valid GCS URL"), "{error}");
}

#[tokio::test]
async fn the_agents_netrc_is_used() {
    let server = Server::file(b"x").await;
    let alloc = Alloc::new();
    let netrc = alloc.root.path().join("alloc-1/netrc");
    std::fs::write(&netrc, "machine 127.0.0.1 login me password pw").unwrap();
    let env = BTreeMap::from([("NETRC".to_owned(), netrc.display().to_string())]);
    let options = ArtifactOptions { env, ..ArtifactOptions::default() };
    alloc.fetch_with(artifact(&server.url("f")), options.clone()).await.unwrap();
    let headers = BTreeMap::from([("Authorization".to_owned(), "Bearer t".to_owned())]);
    alloc
        .fetch_with(Artifact { getter_headers: headers, ..artifact(&server.url("f")) }, options)
        .await
        .unwrap();
    let requests = server.requests.lock().unwrap().clone();
    assert!(requests[0].contains("uthorization: Basic bWU6cHc="), "{requests:?}");
    assert!(requests[1].contains("uthorization: Bearer t") && !requests[1].contains("Basic"), "{requests:?}");
}
