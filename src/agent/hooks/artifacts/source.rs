//! The `source` of an artifact and its options, in go-getter's notation: `getter::url//subdirectory?option=value`.

use std::collections::BTreeMap;
use std::path::Component;
use std::path::Path;

use url::Url;

use super::checksum::Checksum;
use super::unpack::Format;

/// How a source is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Getter {
    Http,
    Git,
    S3,
    Gcs,
}

/// Whether a download is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpack {
    /// As it is.
    No,
    As(Format),
}

/// A parsed source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) getter: Getter,
    /// Without the options that are for Herder.
    pub(super) url: Url,
    /// The part of an archive or repository that is wanted.
    pub(super) subdirectory: Option<String>,
    pub(super) checksum: Option<Checksum>,
    pub(super) unpack: Unpack,
    /// The name of the downloaded file.
    pub(super) filename: String,
    /// Options of the getter: git's `ref`, `depth`, `sshkey`; S3's `region`, `version` and keys.
    pub(super) options: BTreeMap<String, String>,
}

const GIT_OPTIONS: [&str; 3] = ["ref", "depth", "sshkey"];
const S3_OPTIONS: [&str; 6] =
    ["aws_access_key_id", "aws_access_key_secret", "aws_access_token", "aws_profile", "region", "version"];
const OWN_OPTIONS: [&str; 3] = ["checksum", "archive", "filename"];

impl Source {
    /// Parses a source with the options of the job file, which count like query parameters. Errors are texts.
    pub(super) fn parse(text: &str, options: &BTreeMap<String, String>) -> Result<Self, String> {
        let (forced, rest) = split_forced(text);
        let (detected, address) = detect(rest);
        let (address, subdirectory) = split_subdirectory(&address)?;
        let url = Url::parse(&address).map_err(|error| format!("error parsing url {address:?}: {error}"))?;
        let getter = getter(forced.or(detected), &url)?;

        let mut own = BTreeMap::new();
        let is_own = |key: &str| {
            OWN_OPTIONS.contains(&key)
                || match getter {
                    Getter::Git => GIT_OPTIONS.contains(&key),
                    Getter::S3 => S3_OPTIONS.contains(&key),
                    Getter::Http | Getter::Gcs => false,
                }
        };
        let mut kept: Vec<(String, String)> = Vec::new();
        let mut changed = false;
        for (key, value) in url.query_pairs().into_owned() {
            if is_own(&key) {
                own.insert(key, value);
                changed = true;
            } else {
                kept.push((key, value));
            }
        }
        for (key, value) in options {
            if is_own(key) {
                own.insert(key.clone(), value.clone());
            } else {
                kept.retain(|(other, _)| other != key);
                kept.push((key.clone(), value.clone()));
                changed = true;
            }
        }
        let filename = match own.remove("filename").filter(|name| !name.is_empty()) {
            Some(name) => name,
            None => base_name(&url),
        };
        let checksum = own.remove("checksum").map(|text| Checksum::parse(&text)).transpose()?;
        let unpack = match own.remove("archive").as_deref() {
            None | Some("" | "true" | "1" | "t" | "T" | "TRUE" | "True") => {
                Format::of_path(url.path()).map_or(Unpack::No, Unpack::As)
            }
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Unpack::No,
            Some(name) => {
                Format::named(name).map(Unpack::As).ok_or_else(|| format!("unknown archive type {name:?}"))?
            }
        };
        let mut url = url;
        // A query that needs no change stays as it was written: re-encoding could break signed addresses.
        if changed {
            url.set_query(None);
            if !kept.is_empty() {
                url.query_pairs_mut().extend_pairs(&kept);
            }
        }
        Ok(Self { getter, url, subdirectory, checksum, unpack, filename, options: own })
    }
}

fn split_forced(text: &str) -> (Option<&str>, &str) {
    match text.split_once("::") {
        Some((name, rest)) if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric()) => {
            (Some(name), rest)
        }
        _ => (None, text),
    }
}

/// Sources without a scheme: well-known hosts and git's own notation.
fn detect(text: &str) -> (Option<&'static str>, String) {
    if text.contains("://") {
        return (None, text.to_owned());
    }
    for host in ["github.com/", "gitlab.com/", "bitbucket.org/"] {
        if let Some(path) = text.strip_prefix(host) {
            let (path, query) =
                path.split_once('?').map_or((path, String::new()), |(p, q)| (p, format!("?{q}")));
            let mut parts = path.splitn(3, '/');
            let owner = parts.next().unwrap_or_default();
            let repository = parts.next().unwrap_or_default().trim_end_matches(".git");
            let rest =
                parts.next().map(|rest| format!("//{}", rest.trim_start_matches('/'))).unwrap_or_default();
            return (Some("git"), format!("https://{host}{owner}/{repository}.git{rest}{query}"));
        }
    }
    let host = text.split(['/', '?']).next().unwrap_or_default();
    if host.ends_with(".amazonaws.com") && text.contains('/') {
        return (Some("s3"), format!("https://{text}"));
    }
    if text.starts_with("www.googleapis.com/storage/") {
        return (Some("gcs"), format!("https://{text}"));
    }
    match text.split_once(':') {
        Some((user_and_host, path)) if user_and_host.contains('@') && !user_and_host.contains('/') => {
            (Some("git"), format!("ssh://{user_and_host}/{path}"))
        }
        _ => (None, format!("file://{text}")),
    }
}

/// `https://host/a.zip//sub/dir?x` is `https://host/a.zip?x` and `sub/dir`.
fn split_subdirectory(address: &str) -> Result<(String, Option<String>), String> {
    let (address, query) = address.split_once('?').map_or((address, ""), |(a, q)| (a, q));
    let start = address.find("://").map_or(0, |at| at + 3);
    let (base, subdirectory) = match address[start..].find("//") {
        Some(at) => (&address[..start + at], Some(address[start + at + 2..].trim_matches('/').to_owned())),
        None => (address, None),
    };
    let subdirectory = subdirectory.filter(|path| !path.is_empty());
    if let Some(path) = &subdirectory
        && Path::new(path).components().any(|part| part == Component::ParentDir)
    {
        return Err("subdirectory component contain path traversal out of the repository".to_owned());
    }
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    Ok((format!("{base}{query}"), subdirectory))
}

fn getter(named: Option<&str>, url: &Url) -> Result<Getter, String> {
    match (named, url.scheme()) {
        (Some("git"), "http" | "https" | "ssh" | "git") => Ok(Getter::Git),
        (Some("s3"), "http" | "https") => Ok(Getter::S3),
        (Some("gcs"), "http" | "https") => Ok(Getter::Gcs),
        (Some("hg"), _) => {
            Err("hg: Mercurial repositories cannot be fetched; use git, or an archive over http".to_owned())
        }
        (None | Some("http" | "https"), "http" | "https") => Ok(Getter::Http),
        (None | Some("git" | "s3" | "gcs"), other) | (Some(other), _) => {
            Err(format!("download not supported for scheme '{other}'"))
        }
    }
}

fn base_name(url: &Url) -> String {
    let last = url.path().trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = percent_encoding::percent_decode_str(last).decode_utf8_lossy().into_owned();
    // A decoded name must still be one name.
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        "download".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::hooks::artifacts::unpack::Compression;

    fn parse(text: &str) -> Source {
        Source::parse(text, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn names_and_archives_come_from_the_path_not_the_query() {
        for (text, url, name, unpack) in [
            ("https://h/a/hello.jar?raw=true", "https://h/a/hello.jar?raw=true", "hello.jar", Unpack::No),
            ("https://h/ran.zip", "https://h/ran.zip", "ran.zip", Unpack::As(Format::Zip)),
            ("https://h/x?f=a.zip", "https://h/x?f=a.zip", "x", Unpack::No),
            ("https://h/a.tar.gz?archive=false&k=1", "https://h/a.tar.gz?k=1", "a.tar.gz", Unpack::No),
            (
                "https://h/a?archive=tgz&filename=b",
                "https://h/a",
                "b",
                Unpack::As(Format::Tar(Compression::Gzip)),
            ),
            ("http::http://h/a.b%20c", "http://h/a.b%20c", "a.b c", Unpack::No),
        ] {
            let source = parse(text);
            assert_eq!(
                (source.url.as_str(), source.filename.as_str(), source.unpack),
                (url, name, unpack),
                "{text}"
            );
        }
    }

    #[test]
    fn options_count_like_query_parameters() {
        let options = BTreeMap::from([
            ("token".to_owned(), "a b".to_owned()),
            ("archive".to_owned(), "zip".to_owned()),
        ]);
        let source = Source::parse("https://h/x?raw=true", &options).unwrap();
        assert_eq!(source.url.as_str(), "https://h/x?raw=true&token=a+b");
        assert_eq!(source.unpack, Unpack::As(Format::Zip));
    }

    #[test]
    fn repositories_are_recognised() {
        for (text, url, subdirectory) in [
            ("github.com/o/r", "https://github.com/o/r.git", None),
            ("github.com/o/r/sub/x?ref=v1", "https://github.com/o/r.git", Some("sub/x")),
            ("git::https://h/r.git//sub?ref=v1", "https://h/r.git", Some("sub")),
            ("git@h.example:o/r.git", "ssh://git@h.example/o/r.git", None),
        ] {
            let source = parse(text);
            assert_eq!((source.getter, source.url.as_str()), (Getter::Git, url), "{text}");
            assert_eq!(source.subdirectory.as_deref(), subdirectory, "{text}");
        }
    }

    #[test]
    fn buckets_are_recognised() {
        for (text, getter, url) in [
            ("s3::https://h:9000/b/k?region=x", Getter::S3, "https://h:9000/b/k"),
            ("b.s3.amazonaws.com/k", Getter::S3, "https://b.s3.amazonaws.com/k"),
            ("s3-eu-west-1.amazonaws.com/b/k", Getter::S3, "https://s3-eu-west-1.amazonaws.com/b/k"),
            ("https://s3.amazonaws.com/b/k", Getter::Http, "https://s3.amazonaws.com/b/k"),
            ("www.googleapis.com/storage/v1/b/k", Getter::Gcs, "https://www.googleapis.com/storage/v1/b/k"),
        ] {
            let source = parse(text);
            assert_eq!((source.getter, source.url.as_str()), (getter, url), "{text}");
        }
    }

    #[test]
    fn other_schemes_are_refused_in_nomads_words() {
        for (text, expected) in [
            ("file:///etc/passwd", "download not supported for scheme 'file'"),
            ("/etc/passwd", "download not supported for scheme 'file'"),
            ("git::file:///r", "download not supported for scheme 'file'"),
            ("s3::ftp://h/x", "download not supported for scheme 'ftp'"),
            ("svn::https://h/x", "download not supported for scheme 'svn'"),
            (
                "hg::https://h/x",
                "hg: Mercurial repositories cannot be fetched; use git, or an archive over http",
            ),
            ("https://h/a.zip//../x", "subdirectory component contain path traversal out of the repository"),
        ] {
            assert_eq!(Source::parse(text, &BTreeMap::new()).unwrap_err(), expected, "{text}");
        }
    }
}
