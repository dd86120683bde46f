//! Archives, links and destinations that try to get out of the task's directory, or to use up the machine.

use super::*;

#[tokio::test]
async fn archives_cannot_write_outside() {
    use tar::EntryType::Directory;
    use tar::EntryType::Link;
    use tar::EntryType::Regular;
    use tar::EntryType::Symlink;
    let cases: Vec<(&str, Vec<TarEntry>)> = vec![
        ("entry contains '..': ../../../evil", vec![("../../../evil", Regular, "x", 0o644)]),
        ("entry contains '..': a/../../evil", vec![("a/../../evil", Regular, "x", 0o644)]),
        ("entry \"/tmp/evil\" has an absolute path", vec![("/tmp/evil", Regular, "x", 0o644)]),
        ("entry \"s\" links out of the archive, to \"/etc\"", vec![("s", Symlink, "/etc", 0o777)]),
        ("entry \"s\" links out of the archive, to \"../..\"", vec![("s", Symlink, "../..", 0o777)]),
        (
            "entry \"y\" links out of the archive, to \"a/c/..\"",
            vec![
                ("a/", Directory, "", 0o755),
                ("a/c", Symlink, "..", 0o777),
                ("y", Symlink, "a/c/..", 0o777),
            ],
        ),
        // Through a link that lies less deep than its name says.
        (
            "entry \"a/b/l/y\": Too many levels of symbolic links (os error 40)",
            vec![
                ("a/b/x", Regular, "", 0o644),
                ("a/b/l", Symlink, "../..", 0o777),
                ("a/b/l/y", Symlink, "../..", 0o777),
            ],
        ),
        ("entry \"h\" links out of the archive, to \"/etc/passwd\"", vec![("h", Link, "/etc/passwd", 0o644)]),
        ("entry \"h\" links out of the archive, to \"../../x\"", vec![("h", Link, "../../x", 0o644)]),
    ];
    for (expected, entries) in cases {
        let server = Server::file(&tar_of(&entries)).await;
        let alloc = Alloc::new();
        let error = alloc.fetch(artifact(&server.url("x.tar"))).await.unwrap_err();
        assert_eq!(error, format!("failed to download artifact \"{}\": {expected}", server.url("x.tar")));
        assert_eq!(alloc.strangers(), Vec::<String>::new(), "{expected}");
    }
}

#[tokio::test]
async fn zips_cannot_write_outside() {
    let alloc = Alloc::new();
    for (name, expected) in [
        ("../../evil", "entry contains '..': ../../evil"),
        ("..\\..\\evil", "entry contains '..': ../../evil"),
        ("/tmp/herder-evil", "entry \"/tmp/herder-evil\" has an absolute path"),
    ] {
        let server = Server::file(&zip_of(&[(name, "x", 0o644)])).await;
        let error = alloc.fetch(artifact(&server.url("x.zip"))).await.unwrap_err();
        assert_eq!(error, format!("failed to download artifact \"{}\": {expected}", server.url("x.zip")));
    }
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("s", "../../..", zip::write::SimpleFileOptions::default()).unwrap();
    let server = Server::file(&writer.finish().unwrap().into_inner()).await;
    let error = alloc.fetch(artifact(&server.url("x.zip"))).await.unwrap_err();
    assert!(error.contains("entry \"s\" links out of the archive, to \"../../..\""), "{error}");
    assert_eq!(alloc.strangers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_planted_link_does_not_lead_a_download_outside() {
    let server = Server::file(b"x").await;
    let alloc = Alloc::new();
    std::os::unix::fs::symlink(alloc.root.path(), alloc.dirs.task.join("out")).unwrap();
    for destination in ["out/", "../../x", "local/../../../x"] {
        let artifact = Artifact { relative_dest: destination.to_owned(), ..artifact(&server.url("f")) };
        let error = alloc.fetch(artifact).await.unwrap_err();
        assert!(error.ends_with(": artifact destination path escapes alloc directory"), "{error}");
    }
    assert_eq!(alloc.strangers(), Vec::<String>::new());
}

#[tokio::test]
async fn archives_are_bounded() {
    let big = "0".repeat(10_000);
    let zip = zip_of(&[("a", &big, 0o644), ("b", "x", 0o644), ("c", "x", 0o644)]);
    let server = Server::file(&zip).await;
    let alloc = Alloc::new();
    for (options, expected) in [
        (ArtifactOptions { decompression_files: 2, ..Default::default() }, "archive has more than 2 files"),
        (
            ArtifactOptions { decompression_bytes: 9_999, ..Default::default() },
            "archive unpacks to more than 9999 bytes",
        ),
        (ArtifactOptions { http_max_bytes: 20, ..Default::default() }, "download is larger than 20 bytes"),
    ] {
        let error = alloc.fetch_with(artifact(&server.url("x.zip")), options).await.unwrap_err();
        assert!(error.message.ends_with(expected), "{error}");
    }
}

#[tokio::test]
async fn devices_and_pipes_are_refused_and_rights_dropped() {
    for kind in [tar::EntryType::Char, tar::EntryType::Block, tar::EntryType::Fifo] {
        let server = Server::file(&tar_of(&[("dev", kind, "", 0o666)])).await;
        let error = Alloc::new().fetch(artifact(&server.url("x.tar"))).await.unwrap_err();
        assert!(error.contains("entry \"dev\" is a device or a pipe"), "{error}");
    }
    let alloc = Alloc::new();
    let server = Server::file(&tar_of(&[
        ("d/", tar::EntryType::Directory, "", 0o7777),
        ("d/su", tar::EntryType::Regular, "x", 0o6755),
    ]))
    .await;
    alloc.fetch(artifact(&server.url("x.tar"))).await.unwrap();
    assert_eq!((alloc.mode("local/d/su"), alloc.mode("local/d") & 0o7000), (0o755, 0));
}

#[tokio::test]
async fn headers_that_never_end_are_refused() {
    // A name of many megabytes, and an entry that is skipped but said to be endless.
    let mut name = tar::Header::new_gnu();
    name.set_entry_type(tar::EntryType::GNULongName);
    name.set_size(64 << 20);
    name.set_cksum();
    let mut bomb = name.as_bytes().to_vec();
    bomb.resize(bomb.len() + (64 << 20), b'a');
    let server = Server::file(&gzip(&bomb)).await;
    let error = Alloc::new().fetch(artifact(&server.url("x.tar.gz"))).await.unwrap_err();
    assert!(error.contains("the headers of the archive are too large"), "{error}");

    let mut endless = tar::Header::new_gnu();
    endless.set_path("skipped").unwrap();
    endless.set_size(1 << 40);
    endless.set_cksum();
    let server = Server::file(&gzip(endless.as_bytes())).await;
    let error = Alloc::new().fetch(artifact(&server.url("x.tgz//other"))).await.unwrap_err();
    assert!(error.contains("archive unpacks to more than"), "{error}");
}

/// One artifact plants a link, the next one tries to go through it.
#[tokio::test]
async fn a_link_of_an_earlier_artifact_leads_nowhere() {
    let alloc = Alloc::new();
    let outside = alloc.root.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let target = outside.display().to_string();
    // Archives cannot plant it, so the task itself did, between two starts.
    for (name, to) in [("absolute", target.as_str()), ("up", "../../../outside")] {
        std::os::unix::fs::symlink(to, alloc.dirs.task.join("local").join(name)).unwrap();
    }
    std::os::unix::fs::symlink(outside.join("f"), alloc.dirs.task.join("local/f")).unwrap();
    let archive = Server::file(&tar_of(&[
        ("absolute/x", tar::EntryType::Regular, "evil", 0o644),
        ("up/x", tar::EntryType::Regular, "evil", 0o644),
    ]))
    .await;
    let error = alloc.fetch(artifact(&archive.url("x.tar"))).await.unwrap_err();
    assert!(error.contains("entry \"absolute/x\""), "{error}");
    for destination in ["local/absolute", "local/up/", "/local/up/deeper"] {
        let file = Server::file(b"evil").await;
        let artifact = Artifact { relative_dest: destination.to_owned(), ..artifact(&file.url("g")) };
        let error = alloc.fetch(artifact).await.unwrap_err();
        assert!(error.ends_with(ESCAPES), "{error}");
    }
    // A link at the very place of the file is replaced, not followed.
    let file = Server::file(b"content").await;
    alloc.fetch(artifact(&file.url("f"))).await.unwrap();
    assert!(!alloc.dirs.task.join("local/f").symlink_metadata().unwrap().is_symlink());
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(alloc.strangers(), ["outside"]);
    for name in ["../x", "/etc/x", "a/../../x"] {
        let error = alloc.fetch(with_options(&file.url("f"), &[("filename", name)])).await.unwrap_err();
        assert!(error.ends_with(ESCAPES) || error.contains("filename"), "{error}");
    }
    assert_eq!(alloc.strangers(), ["outside"]);
}
