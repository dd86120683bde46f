use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::fs::symlink;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt;
use futures::TryStreamExt;

use super::*;

struct Alloc {
    _root: tempfile::TempDir,
    path: PathBuf,
    files: AllocFiles,
}

impl Alloc {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap().join("1");
        for directory in
            ["alloc/logs", "alloc/data", "alloc/secrets", "web/local", "web/secrets", "web/private"]
        {
            std::fs::create_dir_all(path.join(directory)).unwrap();
        }
        std::fs::write(root.path().join("outside"), "outside").unwrap();
        let files = AllocFiles::open(&path).unwrap();
        Self { path, files, _root: root }
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path.join(path), text).unwrap();
    }

    fn append(&self, path: &str, text: &str) {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(self.path.join(path));
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    async fn read(&self, path: &str, offset: u64, limit: Option<u64>) -> Result<String, FileError> {
        let (_, stream) = self.files.read(path, offset, limit).await?;
        let chunks: Vec<Bytes> = stream.try_collect().await?;
        Ok(String::from_utf8(chunks.concat()).unwrap())
    }

    async fn logs(&self, origin: Origin, offset: u64, follow: bool) -> Frames {
        let follow = if follow { Follow::Always } else { Follow::No };
        self.followed(origin, offset, follow).await
    }

    async fn followed(&self, origin: Origin, offset: u64, follow: Follow) -> Frames {
        Frames(Box::pin(self.files.logs("web", LogKind::Stdout, origin, offset, follow).await.unwrap()))
    }
}

struct Frames(Pin<Box<dyn Stream<Item = Result<StreamFrame, FileError>> + Send>>);

impl Frames {
    /// The next frame that is no heartbeat.
    async fn next(&mut self) -> Option<StreamFrame> {
        let next = async {
            loop {
                match self.0.next().await {
                    Some(frame) if frame.as_ref().unwrap().is_heartbeat() => {}
                    other => return other.map(Result::unwrap),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.unwrap()
    }

    async fn text(&mut self) -> String {
        let frame = self.next().await.unwrap();
        String::from_utf8(frame.data.to_vec()).unwrap()
    }

    /// All that a stream without an end of its own says.
    async fn rest(mut self) -> String {
        let mut text = String::new();
        while let Some(frame) = self.next().await {
            text.push_str(std::str::from_utf8(&frame.data).unwrap());
        }
        text
    }
}

fn frame(offset: u64, data: &str, file: &str, file_event: &'static str) -> StreamFrame {
    StreamFrame { offset, data: Bytes::copy_from_slice(data.as_bytes()), file: file.to_owned(), file_event }
}

#[tokio::test]
async fn listings_are_sorted_and_describe_each_entry() {
    let alloc = Alloc::new();
    alloc.write("web/local/b.txt", "hello");
    std::fs::set_permissions(alloc.path.join("web/local/b.txt"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::create_dir(alloc.path.join("web/local/a")).unwrap();
    std::fs::set_permissions(alloc.path.join("web/local/a"), PermissionsExt::from_mode(0o1777)).unwrap();
    symlink("b.txt", alloc.path.join("web/local/c")).unwrap();
    nix::unistd::mkfifo(&alloc.path.join("web/local/pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600))
        .unwrap();
    let list = alloc.files.list("/web/local").await.unwrap();
    let shown: Vec<(&str, bool, &str, &str)> = list
        .iter()
        .map(|info| (info.name.as_str(), info.is_dir, info.file_mode.as_str(), info.content_type))
        .collect();
    let text = "text/plain; charset=utf-8";
    assert_eq!(
        shown,
        [
            ("a", true, "dtrwxrwxrwx", ""),
            ("b.txt", false, "-rw-r-----", text),
            ("c", false, "Lrwxrwxrwx", ""),
            ("pipe", false, "prw-------", ""),
        ]
    );
    assert_eq!(list[1].size, 5);
    let stat = alloc.files.stat("web/local/b.txt").await.unwrap();
    assert_eq!(stat, list[1]);
    let json = serde_json::to_value(&list[0]).unwrap();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["Name", "IsDir", "Size", "FileMode", "ModTime"]);
    let names: Vec<String> = alloc.files.list("").await.unwrap().into_iter().map(|info| info.name).collect();
    assert_eq!(names, ["alloc", "web"]);
    assert!(alloc.files.stat("/").await.unwrap().is_dir);
}

#[tokio::test]
async fn a_part_of_a_file_can_be_read() {
    let alloc = Alloc::new();
    alloc.write("alloc/data/f", "0123456789");
    for (offset, limit, expected) in [
        (0, None, "0123456789"),
        (3, None, "3456789"),
        (3, Some(2), "34"),
        (8, Some(9), "89"),
        (99, None, ""),
    ] {
        assert_eq!(alloc.read("/alloc/data/f", offset, limit).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn nothing_outside_and_nothing_secret_is_shown() {
    let alloc = Alloc::new();
    alloc.write("web/secrets/token", "t");
    alloc.write("web/private/state", "t");
    alloc.write("alloc/secrets/fine", "shared");
    symlink("../../outside", alloc.path.join("web/out")).unwrap();
    symlink("/etc", alloc.path.join("web/etc")).unwrap();
    symlink("../secrets", alloc.path.join("web/local/peek")).unwrap();
    symlink("secrets/token", alloc.path.join("web/token")).unwrap();
    for path in ["../outside", "web/../../outside", "web/out", "web/etc/passwd", "/../outside"] {
        let read = alloc.read(path, 0, None).await.unwrap_err();
        let stat = alloc.files.stat(path).await.unwrap_err();
        for error in [read, stat] {
            assert_eq!(error.to_string(), "Path escapes the alloc directory", "{path}");
        }
    }
    for path in [
        "web/secrets/token",
        "web/private/state",
        "web/local/peek/token",
        "web/token",
        "web/x/../secrets/token",
    ] {
        let error = alloc.read(path, 0, None).await.unwrap_err();
        assert_eq!(error.to_string(), format!("Reading secret file prohibited: {path}"));
    }
    assert!(matches!(alloc.files.list("web/secrets").await, Err(FileError::Secret(_))));
    assert!(matches!(alloc.files.list("web/local/peek").await, Err(FileError::Secret(_))));
    let stream = alloc.files.stream("web/token", Origin::Start, 0, true).await.map(|_| ());
    assert!(matches!(stream, Err(FileError::Secret(_))));
    assert_eq!(alloc.read("alloc/secrets/fine", 0, None).await.unwrap(), "shared");
    let logs = alloc
        .files
        .logs("../../web/secrets/x", LogKind::Stdout, Origin::Start, 0, Follow::No)
        .await
        .map(|_| ());
    assert!(matches!(logs, Err(FileError::NotFound(..))));
}

#[tokio::test]
async fn errors_name_the_step_and_the_path() {
    let alloc = Alloc::new();
    let at = |path: &str| alloc.path.join(path).display().to_string();
    let error = alloc.files.list("web/none").await.unwrap_err();
    assert_eq!(error.to_string(), format!("open {}: no such file or directory", at("web/none")));
    let error = alloc.files.stat("/web/none").await.unwrap_err();
    assert_eq!(error.to_string(), format!("stat {}: no such file or directory", at("web/none")));
    let error = alloc.read("web/local", 0, None).await.unwrap_err();
    assert_eq!(error.to_string(), "file \"web/local\" is a directory");
    assert!(matches!(AllocFiles::open(&alloc.path.join("none")), Err(FileError::NotFound(..))));
}

#[tokio::test]
async fn frames_carry_the_position_after_their_data() {
    let alloc = Alloc::new();
    alloc.write("alloc/data/f", "01234567");
    for (origin, offset, expected) in [
        (Origin::Start, 0, Some(frame(8, "01234567", "alloc/data/f", ""))),
        (Origin::Start, 3, Some(frame(8, "34567", "alloc/data/f", ""))),
        (Origin::End, 2, Some(frame(8, "67", "alloc/data/f", ""))),
        (Origin::End, 99, Some(frame(8, "01234567", "alloc/data/f", ""))),
        (Origin::Start, 99, None),
    ] {
        let mut frames =
            Frames(Box::pin(alloc.files.stream("alloc/data/f", origin, offset, false).await.unwrap()));
        assert_eq!(frames.next().await, expected);
        if expected.is_some() {
            assert_eq!(frames.next().await, None);
        }
    }
    let json = serde_json::to_string(&frame(2, "hi", "f", "")).unwrap();
    assert_eq!(json, r#"{"Offset":2,"Data":"aGk=","File":"f"}"#);
    assert_eq!(serde_json::to_string(&StreamFrame::default()).unwrap(), "{}");
}

#[tokio::test]
async fn a_followed_file_tells_growth_truncation_and_deletion() {
    let alloc = Alloc::new();
    alloc.write("alloc/data/f", "one");
    let mut frames =
        Frames(Box::pin(alloc.files.stream("alloc/data/f", Origin::Start, 0, true).await.unwrap()));
    assert_eq!(frames.next().await.unwrap(), frame(3, "one", "alloc/data/f", ""));
    alloc.append("alloc/data/f", "two");
    assert_eq!(frames.next().await.unwrap(), frame(6, "two", "", ""));
    alloc.write("alloc/data/f", "3");
    assert_eq!(frames.next().await.unwrap(), frame(0, "", "alloc/data/f", "file truncated"));
    assert_eq!(frames.next().await.unwrap(), frame(1, "3", "", ""));
    std::fs::remove_file(alloc.path.join("alloc/data/f")).unwrap();
    assert_eq!(frames.next().await.unwrap(), frame(0, "", "alloc/data/f", "file deleted"));
    assert_eq!(frames.next().await, None);
}

#[tokio::test]
async fn logs_are_read_across_rotated_files() {
    let alloc = Alloc::new();
    for (number, text) in [(2, "two-"), (10, "ten-"), (11, "end")] {
        alloc.write(&format!("alloc/logs/web.stdout.{number}"), text);
    }
    alloc.write("alloc/logs/web.stderr.0", "errors");
    alloc.write("alloc/logs/web.stdout.x", "no log");
    alloc.write("alloc/logs/web-2.stdout.0", "another task");
    for (origin, offset, expected) in [
        (Origin::Start, 0, "two-ten-end"),
        (Origin::Start, 5, "en-end"),
        (Origin::Start, 99, ""),
        (Origin::End, 0, ""),
        (Origin::End, 2, "nd"),
        (Origin::End, 5, "n-end"),
        (Origin::End, 99, "two-ten-end"),
    ] {
        assert_eq!(alloc.logs(origin, offset, false).await.rest().await, expected, "{origin:?} {offset}");
    }
    let mut frames = alloc.logs(Origin::Start, 0, false).await;
    assert_eq!(frames.next().await.unwrap(), frame(4, "two-", "alloc/logs/web.stdout.2", ""));
    assert_eq!(frames.next().await.unwrap(), frame(4, "ten-", "alloc/logs/web.stdout.10", ""));
}

#[tokio::test]
async fn a_followed_log_goes_on_in_the_next_file() {
    let alloc = Alloc::new();
    let mut frames = alloc.logs(Origin::End, 0, true).await;
    // The log begins only after somebody listens.
    alloc.append("alloc/logs/web.stdout.0", "a");
    assert_eq!(frames.text().await, "a");
    alloc.append("alloc/logs/web.stdout.0", "b");
    assert_eq!(frames.text().await, "b");
    alloc.append("alloc/logs/web.stdout.0", "c");
    alloc.append("alloc/logs/web.stdout.1", "d");
    std::fs::remove_file(alloc.path.join("alloc/logs/web.stdout.0")).unwrap();
    assert_eq!(frames.text().await, "c", "also when the file has been rotated away");
    assert_eq!(frames.next().await.unwrap(), frame(1, "d", "alloc/logs/web.stdout.1", ""));
}

#[tokio::test]
async fn a_quiet_stream_sends_heartbeats() {
    let alloc = Alloc::new();
    let mut frames = alloc.logs(Origin::Start, 0, true).await;
    assert!(frames.0.next().await.unwrap().unwrap().is_heartbeat());
}

#[tokio::test]
async fn large_files_come_in_bounded_frames() {
    let alloc = Alloc::new();
    let text = "0123456789abcdef".repeat(10_000);
    alloc.write("alloc/logs/web.stdout.0", &text);
    let frames: Vec<StreamFrame> = alloc.logs(Origin::Start, 0, false).await.0.try_collect().await.unwrap();
    assert_eq!(frames.len(), 3);
    assert_eq!(frames.iter().flat_map(|frame| frame.data.to_vec()).collect::<Vec<u8>>(), text.as_bytes());
}

#[tokio::test]
async fn a_followed_log_ends_with_its_allocation_once_all_is_read() {
    let alloc = Alloc::new();
    let ended = tokio::sync::watch::Sender::new(false);
    let follow = || Follow::Until(ended.subscribe());
    let mut frames = alloc.followed(Origin::Start, 0, follow()).await;
    alloc.append("alloc/logs/web.stdout.0", "one\n");
    assert_eq!(frames.text().await, "one\n");
    alloc.append("alloc/logs/web.stdout.0", "two\n");
    alloc.append("alloc/logs/web.stdout.1", "three\n");
    ended.send_replace(true);
    assert_eq!(frames.rest().await, "two\nthree\n");
    assert_eq!(alloc.followed(Origin::End, 6, follow()).await.rest().await, "three\n", "it had ended before");
    let waiting =
        alloc.followed(Origin::End, 0, Follow::Until(tokio::sync::watch::Sender::new(false).subscribe()));
    assert_eq!(waiting.await.rest().await, "", "nobody knows the allocation any more");
}

#[tokio::test]
async fn what_a_task_plants_among_its_logs_is_not_shown_as_one() {
    let alloc = Alloc::new();
    alloc.write("alloc/logs/web.stdout.0", "log\n");
    alloc.write(&format!("alloc/logs/web.stdout.{}", u64::MAX), "absurd\n");
    alloc.write("web/secrets/web.stdout.0", "secret\n");
    assert_eq!(alloc.logs(Origin::Start, 0, false).await.rest().await, "log\n");
    std::fs::rename(alloc.path.join("alloc/logs"), alloc.path.join("alloc/moved")).unwrap();
    symlink("../web/secrets", alloc.path.join("alloc/logs")).unwrap();
    let refused = alloc.files.logs("web", LogKind::Stdout, Origin::Start, 0, Follow::No).await;
    assert!(refused.is_err(), "the place of the logs leads to secrets");
}
