use std::collections::BTreeMap;
use std::io::Cursor;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

mod hostile;
mod stores;

/// Answers each path with fixed bytes, and remembers the requests.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Sends whole raw answers, one connection each, in order; the last one again and again.
    async fn raw(answers: Vec<Bytes>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        break;
                    }
                    request.push(byte[0]);
                }
                seen.lock().unwrap().push(String::from_utf8(request).unwrap());
                let answer = answers.get(number).or(answers.last()).unwrap();
                stream.write_all(answer).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        });
        Self { address, requests, task }
    }

    async fn file(content: &[u8]) -> Self {
        Self::raw(vec![answer("200 OK", "", content)]).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Bytes {
    let mut bytes =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes.into()
}

/// An allocation with the task `web`.
struct Alloc {
    root: tempfile::TempDir,
    dirs: TaskDirs,
}

impl Alloc {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let alloc = root.path().join("alloc-1");
        let task = alloc.join("web");
        std::fs::create_dir_all(task.join("local")).unwrap();
        let dirs = TaskDirs { local: task.join("local"), task, alloc, ..TaskDirs::default() };
        Self { root, dirs }
    }

    async fn fetch_with(&self, artifact: Artifact, options: ArtifactOptions) -> Result<(), HookError> {
        let progress: HookProgress = Arc::new(|_: &str| {});
        // Boxed as `Send`, because runners move between threads.
        let fetch: futures::future::BoxFuture<'_, _> =
            Box::pin(fetch(&artifact, &self.dirs, &options, &progress));
        fetch.await
    }

    async fn fetch(&self, artifact: Artifact) -> Result<(), String> {
        self.fetch_with(artifact, ArtifactOptions::default()).await.map_err(|error| {
            assert!(error.recoverable);
            error.message
        })
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dirs.task.join(path)).unwrap_or_else(|error| format!("{path}: {error}"))
    }

    fn mode(&self, path: &str) -> u32 {
        self.dirs.task.join(path).metadata().unwrap().permissions().mode() & 0o7777
    }

    /// Files outside of the task's directory.
    fn strangers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for directory in [self.root.path(), self.dirs.alloc.as_path()] {
            for entry in std::fs::read_dir(directory).unwrap() {
                found.push(entry.unwrap().file_name().into_string().unwrap());
            }
        }
        found.retain(|name| name != "alloc-1" && name != "web");
        found
    }
}

fn artifact(url: &str) -> Artifact {
    Artifact { getter_source: url.to_owned(), getter_mode: "any".to_owned(), ..Artifact::default() }
}

fn with_options(url: &str, options: &[(&str, &str)]) -> Artifact {
    let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Artifact { getter_options: options, ..artifact(url) }
}

/// Name, kind, content or target, mode.
type TarEntry<'a> = (&'a str, tar::EntryType, &'a str, u32);

/// A tar whose headers are written raw, so that names may be as bad as an attacker likes.
fn tar_of(entries: &[TarEntry]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        let mut body = content.as_bytes();
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
            body = &[];
        }
        header.set_size(body.len() as u64);
        header.set_cksum();
        builder.append(&header, body).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zip_of(entries: &[(&str, &str, u32)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in entries {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[tokio::test]
async fn a_plain_file_lands_in_local_under_the_name_of_the_path() {
    let server = Server::file(b"jar").await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&server.url("a/hello.jar?raw=true"))).await.unwrap();
    assert_eq!(alloc.read("local/hello.jar"), "jar");
    assert_eq!(alloc.mode("local/hello.jar"), 0o644);
    let request = server.requests.lock().unwrap()[0].clone();
    assert!(request.starts_with("GET /a/hello.jar?raw=true HTTP/1.1\r\n"), "{request}");
    assert_eq!(
        std::fs::read_dir(alloc.dirs.task.join("tmp")).unwrap().count(),
        0,
        "temporary files are left"
    );
}

#[tokio::test]
async fn a_zip_is_unpacked_with_its_mode_bits() {
    let server =
        Server::file(&zip_of(&[("ran_linux_arm64", "#!/bin/sh", 0o755), ("doc/a.txt", "text", 0o4644)]))
            .await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&server.url("ran.zip"))).await.unwrap();
    assert_eq!(alloc.mode("local/ran_linux_arm64"), 0o755);
    assert_eq!((alloc.read("local/doc/a.txt").as_str(), alloc.mode("local/doc/a.txt")), ("text", 0o644));
}

#[tokio::test]
async fn a_tar_gz_keeps_links_that_stay_inside() {
    let tar = tar_of(&[
        ("d/", tar::EntryType::Directory, "", 0o755),
        ("d/run", tar::EntryType::Regular, "x", 0o755),
        ("d/same", tar::EntryType::Symlink, "run", 0o777),
        ("up", tar::EntryType::Symlink, "d/run", 0o777),
        ("hard", tar::EntryType::Link, "d/run", 0o755),
    ]);
    let server = Server::file(&gzip(&tar)).await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&server.url("x.tar.gz"))).await.unwrap();
    for path in ["local/d/run", "local/d/same", "local/up", "local/hard"] {
        assert_eq!((alloc.read(path).as_str(), alloc.mode(path)), ("x", 0o755), "{path}");
    }
}

#[tokio::test]
async fn checksums_are_of_the_download_and_decide() {
    let server = Server::file(b"abc").await;
    let alloc = Alloc::new();
    let good = "md5:900150983cd24fb0d6963f7d28e17f72";
    alloc.fetch(with_options(&server.url("f"), &[("checksum", good)])).await.unwrap();
    alloc.fetch(artifact(&server.url(&format!("g?checksum={good}")))).await.unwrap();
    assert_eq!(alloc.read("local/g"), "abc");
    let bad = "md5:900150983cd24fb0d6963f7d28e17f73";
    let error = alloc.fetch(with_options(&server.url("h"), &[("checksum", bad)])).await.unwrap_err();
    let text = "Checksums did not match for h.\nExpected: 900150983cd24fb0d6963f7d28e17f73\n\
                Got: 900150983cd24fb0d6963f7d28e17f72\n*md5.digest";
    assert!(error.ends_with(text), "{error}");
    assert!(!alloc.dirs.task.join("local/h").exists());
    assert!(!server.requests.lock().unwrap()[1].contains("checksum"));
}

#[tokio::test]
async fn modes_decide_what_the_destination_is() {
    let server = Server::file(&gzip(b"text")).await;
    let alloc = Alloc::new();
    let url = server.url("a.gz");
    let file = Artifact { getter_mode: "file".into(), relative_dest: "local/b/c".into(), ..artifact(&url) };
    alloc.fetch(file).await.unwrap();
    assert_eq!(alloc.read("local/b/c"), "text");

    let error = alloc.fetch(artifact(&url)).await.unwrap_err();
    assert!(error.ends_with("gzip-compressed files can only unarchive to a single file"), "{error}");
    alloc.fetch(with_options(&url, &[("archive", "false"), ("filename", "d.bin")])).await.unwrap();
    assert!(alloc.dirs.task.join("local/d.bin").exists());

    let file = Artifact { getter_mode: "file".into(), ..with_options(&url, &[("archive", "false")]) };
    alloc.fetch(file).await.unwrap();
    assert!(alloc.dirs.task.join("local/a.gz").is_file());

    let directory =
        Artifact { getter_mode: "dir".into(), relative_dest: "e".into(), ..artifact(&server.url("f")) };
    alloc.fetch(directory).await.unwrap();
    assert!(!alloc.dirs.task.join("e").exists());
}

#[tokio::test]
async fn archives_are_known_by_their_path_and_single_compressed_files_need_mode_file() {
    let server = Server::file(&zip_of(&[("in/side", "x", 0o644)])).await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&server.url("a.zip?download=b.txt"))).await.unwrap();
    assert_eq!(alloc.read("local/in/side"), "x");
    alloc.fetch(artifact(&server.url("a.bin?download=b.zip"))).await.unwrap();
    assert!(alloc.dirs.task.join("local/a.bin").is_file(), "the query says nothing");
    let server = Server::file(&gzip(b"text")).await;
    let url = server.url("a.txt.gz?x=1");
    let error = alloc.fetch(artifact(&url)).await.unwrap_err();
    assert!(error.ends_with("gzip-compressed files can only unarchive to a single file"), "{error}");
    let file = Artifact { getter_mode: "file".into(), relative_dest: "local/a.txt".into(), ..artifact(&url) };
    alloc.fetch(file).await.unwrap();
    assert_eq!(alloc.read("local/a.txt"), "text");
}

#[tokio::test]
async fn mode_dir_on_a_plain_file_downloads_nothing_and_succeeds() {
    let server = Server::file(b"text").await;
    let alloc = Alloc::new();
    let dir =
        Artifact { getter_mode: "dir".into(), relative_dest: "into".into(), ..artifact(&server.url("f")) };
    alloc.fetch(dir).await.unwrap();
    assert!(!alloc.dirs.task.join("into").exists());
}

#[tokio::test]
async fn a_part_of_an_archive_can_be_asked_for() {
    let server = Server::file(&zip_of(&[("r/a/x", "x", 0o644), ("r/b", "b", 0o644)])).await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&server.url("f.zip//r/a"))).await.unwrap();
    assert_eq!(alloc.read("local/x"), "x");
    assert!(!alloc.dirs.task.join("local/b").exists());
    let error = alloc.fetch(artifact(&server.url("f.zip//zz"))).await.unwrap_err();
    assert!(error.ends_with("subdirectory \"zz\" not found"), "{error}");
}

#[tokio::test]
async fn failures_name_the_url_and_the_reason() {
    let server = Server::raw(vec![answer("404 Not Found", "", b"")]).await;
    let alloc = Alloc::new();
    let url = server.url("f");
    let error = alloc.fetch(artifact(&url)).await.unwrap_err();
    assert_eq!(error, format!("failed to download artifact \"{url}\": bad response code: 404"));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{closed}/f");
    let error = alloc.fetch(artifact(&url)).await.unwrap_err();
    assert_eq!(
        error,
        format!(
            "failed to download artifact \"{url}\": Get \"{url}\": dial tcp {closed}: connect: connection refused"
        )
    );
    let error = alloc.fetch(artifact("file:///etc/passwd")).await.unwrap_err();
    assert!(error.ends_with("download not supported for scheme 'file'"), "{error}");
}

#[tokio::test]
async fn headers_are_sent_and_redirects_followed() {
    let server = Server::raw(vec![
        answer("302 Found", "Location: /other\r\nConnection: close\r\n", b""),
        answer("200 OK", "", b"moved"),
    ])
    .await;
    let alloc = Alloc::new();
    let headers = BTreeMap::from([("X-Token".to_owned(), "t".to_owned())]);
    alloc.fetch(Artifact { getter_headers: headers, ..artifact(&server.url("f")) }).await.unwrap();
    assert_eq!(alloc.read("local/f"), "moved");
    let requests = server.requests.lock().unwrap().clone();
    assert!(
        requests[1].starts_with("GET /other ") && requests[1].to_lowercase().contains("x-token: t"),
        "{requests:?}"
    );
}

#[tokio::test]
async fn a_broken_download_is_resumed_when_the_server_can() {
    let cut = Bytes::from_static(b"HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 6\r\n\r\nabc");
    let server = Server::raw(vec![cut.clone(), answer("206 Partial Content", "", b"def")]).await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&server.url("f"))).await.unwrap();
    assert_eq!(alloc.read("local/f"), "abcdef");
    let second = server.requests.lock().unwrap()[1].to_lowercase();
    assert!(second.contains("range: bytes=3-\r\n") && second.contains("if-range: \"v1\"\r\n"), "{second}");

    let server = Server::raw(vec![cut, answer("200 OK", "", b"newer!!")]).await;
    alloc.fetch(artifact(&server.url("f"))).await.unwrap();
    assert_eq!(alloc.read("local/f"), "newer!!");
}

#[tokio::test]
async fn a_cut_download_without_a_tag_fails_and_leaves_nothing() {
    let server =
        Server::raw(vec![Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")]).await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&server.url("f"))).await.unwrap_err();
    for directory in ["local", "tmp"] {
        assert_eq!(std::fs::read_dir(alloc.dirs.task.join(directory)).unwrap().count(), 0);
    }
}

/// A repository with one commit on `main` and a tag `v1` before it, served over plain HTTP.
async fn repository(root: &Path) -> SocketAddr {
    let git = |at: &Path, arguments: &[&str]| {
        let mut command = std::process::Command::new("git");
        command.args(["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]);
        let output = command.args(arguments).current_dir(at).env("HOME", root).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let work = root.join("work");
    std::fs::create_dir_all(work.join("sub")).unwrap();
    git(&work, &["init", "--quiet", "--initial-branch", "main"]);
    for (text, last) in [("old", &["tag", "v1"][..]), ("new", &["status"][..])] {
        std::fs::write(work.join("sub/run.sh"), text).unwrap();
        std::fs::set_permissions(work.join("sub/run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", text]);
        git(&work, last);
    }
    git(root, &["clone", "--quiet", "--bare", "work", "served/r.git"]);
    git(&root.join("served/r.git"), &["update-server-info"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(warp::serve(warp::fs::dir(root.join("served"))).incoming(listener).run());
    address
}

#[tokio::test]
async fn repositories_are_checked_out() {
    let root = tempfile::tempdir().unwrap();
    let address = repository(root.path()).await;
    let alloc = Alloc::new();
    alloc.fetch(artifact(&format!("git::http://{address}/r.git"))).await.unwrap();
    assert_eq!((alloc.read("local/sub/run.sh").as_str(), alloc.mode("local/sub/run.sh")), ("new", 0o755));
    let part = with_options(&format!("git::http://{address}/r.git//sub"), &[("ref", "v1")]);
    alloc.fetch(Artifact { relative_dest: "local/part".into(), ..part }).await.unwrap();
    assert_eq!(alloc.read("local/part/run.sh"), "old");
    let none = with_options(&format!("git::http://{address}/r.git"), &[("ref", "nope")]);
    let error = alloc.fetch(none).await.unwrap_err();
    assert!(error.contains("git exited with 1") && error.contains("nope"), "{error}");
    let dash = with_options(&format!("git::http://{address}/r.git"), &[("ref", "--upload-pack=x")]);
    assert!(alloc.fetch(dash).await.unwrap_err().contains("must not begin with a dash"));
    assert_eq!(alloc.strangers(), Vec::<String>::new(), "work places are removed");
}

#[tokio::test]
async fn chown_gives_the_destination_to_the_user() {
    use std::os::unix::fs::MetadataExt;
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let server = Server::file(b"x").await;
    let alloc = Alloc::new();
    let options = ArtifactOptions { user: "nobody".to_owned(), ..ArtifactOptions::default() };
    alloc.fetch_with(artifact(&server.url("a")), options.clone()).await.unwrap();
    assert_eq!(alloc.dirs.task.join("local/a").metadata().unwrap().uid(), 0);
    alloc.fetch_with(Artifact { chown: true, ..artifact(&server.url("b")) }, options.clone()).await.unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    for path in ["local", "local/a", "local/b"] {
        assert_eq!(alloc.dirs.task.join(path).metadata().unwrap().uid(), nobody, "{path}");
    }
    let options = ArtifactOptions { user: "no-such-user".to_owned(), ..options };
    let error =
        alloc.fetch_with(Artifact { chown: true, ..artifact(&server.url("b")) }, options).await.unwrap_err();
    assert!(error.message.ends_with("failed to chown: user: unknown user no-such-user"), "{error}");
}

#[tokio::test]
async fn other_compressions_are_known() {
    let tar = tar_of(&[("d/run", tar::EntryType::Regular, "x", 0o755)]);
    let bzip2 = |bytes: &[u8]| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let xz = |bytes: &[u8]| {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    type Compress<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let kinds: [(&str, &str, Compress); 4] =
        [("bzip2", "bz2", &bzip2), ("xz", "xz", &xz), ("zstd", "zst", &zstd), ("gzip", "gz", &gzip)];
    for (name, suffix, compress) in kinds {
        let alloc = Alloc::new();
        // Two streams one behind the other are one file.
        let server = Server::file(&[compress(&tar[..512]), compress(&tar[512..])].concat()).await;
        alloc.fetch(artifact(&server.url(&format!("a.tar.{suffix}?x=1")))).await.unwrap();
        assert_eq!((alloc.read("local/d/run").as_str(), alloc.mode("local/d/run")), ("x", 0o755));

        let server = Server::file(&compress(b"text")).await;
        let url = server.url(&format!("a.{suffix}"));
        alloc
            .fetch(Artifact { getter_mode: "file".into(), relative_dest: "b".into(), ..artifact(&url) })
            .await
            .unwrap();
        assert_eq!(alloc.read("b"), "text");
        let error = alloc.fetch(artifact(&url)).await.unwrap_err();
        assert!(
            error.ends_with(&format!("{name}-compressed files can only unarchive to a single file")),
            "{error}"
        );

        let server = Server::file(b"no such format").await;
        alloc.fetch(artifact(&server.url(&format!("a.tar.{suffix}")))).await.unwrap_err();
    }
}

#[tokio::test]
async fn long_downloads_tell_how_far_they_are() {
    let server = Server::file(&vec![0; 3 << 20]).await;
    let alloc = Alloc::new();
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = said.clone();
    let progress: HookProgress = Arc::new(move |text: &str| heard.lock().unwrap().push(text.to_owned()));
    let options = ArtifactOptions { progress_after: Duration::ZERO, ..ArtifactOptions::default() };
    fetch(&artifact(&server.url("big")), &alloc.dirs, &options, &progress).await.unwrap();
    let said = said.lock().unwrap();
    let expected = format!("Downloading artifact \"{}\": 3.0 MiB of 3.0 MiB", server.url("big"));
    assert_eq!(said.last(), Some(&expected));
}

#[tokio::test]
async fn what_cannot_have_a_checksum_or_a_file_name_says_so() {
    let alloc = Alloc::new();
    let sum = ("checksum", "md5:900150983cd24fb0d6963f7d28e17f72");
    let error = alloc.fetch(with_options("git::http://127.0.0.1:1/r", &[sum])).await.unwrap_err();
    assert!(error.ends_with("checksum cannot be specified for directory download"), "{error}");
    let directory = Artifact { getter_mode: "dir".into(), ..with_options("http://127.0.0.1:1/f", &[sum]) };
    let error = alloc.fetch(directory).await.unwrap_err();
    assert!(error.ends_with("checksum cannot be specified for directory download"), "{error}");
    let file = Artifact { getter_mode: "file".into(), ..artifact("git::http://127.0.0.1:1/r") };
    assert!(alloc.fetch(file).await.unwrap_err().contains("a git repository is a directory"));
    let error = alloc.fetch(artifact("hg::http://127.0.0.1:1/r")).await.unwrap_err();
    assert!(error.contains("hg: Mercurial repositories cannot be fetched"), "{error}");
}
