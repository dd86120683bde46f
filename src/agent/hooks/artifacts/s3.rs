//! Objects in S3, and in stores that speak its protocol.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Seek;
use std::io::Write;
use std::time::Duration;

use futures::StreamExt;
use futures::TryStreamExt;
use object_store::GetOptions;
use object_store::ObjectStore;
use object_store::RetryConfig;
use object_store::aws::AmazonS3;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;

use super::DIRECTORY_MODE;
use super::ESCAPES;
use super::FILE_MODE;
use super::download::Reporter;
use super::source::Source;
use crate::agent::files::beneath::Attributes;
use crate::agent::files::beneath::Directory;
use crate::agent::files::beneath::is_escape;
use crate::agent::hooks::http::install_tls;

/// Where buckets are when nobody says.
const DEFAULT_REGION: &str = "us-east-1";
/// Attempts of one request, and the time for all of them.
const RETRIES: usize = 3;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Most objects of one directory.
const OBJECTS_MAX: usize = 100_000;

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub(super) enum Missed {
    /// There is none at that place.
    #[error("no object at {0:?} in the bucket")]
    Nothing(String),
    #[error("{0}")]
    Failed(String),
}

impl Missed {
    fn io(error: &std::io::Error) -> Self {
        Self::Failed(if is_escape(error) { ESCAPES.to_owned() } else { error.to_string() })
    }

    fn from(error: object_store::Error, path: &Path) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Nothing(path.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// A place in a bucket.
pub(super) struct Bucket {
    store: AmazonS3,
    /// For what anonymous requests may not see: with the credentials of the machine, on Amazon's own machines.
    machine: Option<AmazonS3>,
    path: Path,
    version: Option<String>,
}

/// How much of all that is fetched has come.
struct Receipt<'a, 'b> {
    max: u64,
    received: u64,
    reporter: &'a mut Reporter<'b>,
}

/// What an address says.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// `None`: Amazon's own.
    endpoint: Option<String>,
    region: String,
    bucket: String,
    key: String,
}

impl Address {
    fn parse(source: &Source) -> Result<Self, String> {
        let url = &source.url;
        let invalid = || format!("URL is not a valid S3 URL: {url}");
        let host = url.host_str().unwrap_or_default();
        let path = percent_encoding::percent_decode_str(url.path().trim_start_matches('/'));
        let path = path.decode_utf8().map_err(|_| invalid())?.into_owned();
        let in_path = || path.split_once('/').map(|(bucket, key)| (bucket.to_owned(), key.to_owned()));
        let given = source.options.get("region").filter(|region| !region.is_empty());
        let or_default = |region: &str| {
            let region = if region.is_empty() { DEFAULT_REGION } else { region };
            given.map_or_else(|| region.to_owned(), Clone::clone)
        };
        let parts: Vec<&str> = host.strip_suffix(".amazonaws.com").unwrap_or_default().split('.').collect();
        // `s3` and `s3-eu-west-1` are both the service.
        let service =
            |part: &str| part.strip_prefix("s3").map(|rest| rest.trim_start_matches('-').to_owned());
        let (endpoint, region, found) = match parts.as_slice() {
            [""] => {
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                (Some(format!("{}://{host}{port}", url.scheme())), or_default(""), in_path())
            }
            [one] => (None, or_default(&service(one).ok_or_else(invalid)?), in_path()),
            ["s3", region] => (None, or_default(region), in_path()),
            [bucket @ .., last] if service(last).is_some() => {
                (None, or_default(&service(last).unwrap_or_default()), Some((bucket.join("."), path.clone())))
            }
            [bucket @ .., "s3", region] => (None, or_default(region), Some((bucket.join("."), path.clone()))),
            _ => return Err(invalid()),
        };
        let (bucket, key) =
            found.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty()).ok_or_else(invalid)?;
        Ok(Self { endpoint, region, bucket, key })
    }
}

impl Bucket {
    /// `env` holds the variables of the agent that may be used: `AWS_ACCESS_KEY_ID` and the like.
    pub(super) fn open(source: &Source, env: &BTreeMap<String, String>) -> Result<Self, String> {
        install_tls();
        let address = Address::parse(source)?;
        let path = Path::parse(address.key.trim_end_matches('/'))
            .map_err(|error| format!("{:?} is no key: {error}", address.key))?;
        let retry =
            RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&address.bucket)
            .with_region(&address.region)
            .with_allow_http(source.url.scheme() == "http")
            .with_retry(retry);
        if let Some(endpoint) = &address.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let option = |name: &str| source.options.get(name).filter(|value| !value.is_empty());
        let given = |name: &str, variable: &str| option(name).or_else(|| env.get(variable)).cloned();
        let id = given("aws_access_key_id", "AWS_ACCESS_KEY_ID");
        let secret = given("aws_access_key_secret", "AWS_SECRET_ACCESS_KEY");
        let mut machine = None;
        let builder = match (id, secret) {
            (Some(id), Some(secret)) => {
                let builder = builder.with_access_key_id(id).with_secret_access_key(secret);
                match given("aws_access_token", "AWS_SESSION_TOKEN") {
                    Some(token) => builder.with_token(token),
                    None => builder,
                }
            }
            (None, None) => {
                if address.endpoint.is_none() {
                    machine = Some(builder.clone().build().map_err(|error| error.to_string())?);
                }
                builder.with_skip_signature(true)
            }
            (Some(_), None) => return Err("aws_access_key_id without aws_access_key_secret".to_owned()),
            (None, Some(_)) => return Err("aws_access_key_secret without aws_access_key_id".to_owned()),
        };
        let store = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { store, machine, path, version: option("version").cloned() })
    }

    /// Writes the object to `file`.
    pub(super) async fn object(
        &self,
        file: &mut File,
        max: u64,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), Missed> {
        let mut receipt = Receipt { max, received: 0, reporter };
        match self.save(&self.store, &self.path, file, &mut receipt).await {
            Err(
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
            ) if self.machine.is_some() => {
                let Some(machine) = &self.machine else { return Ok(()) };
                self.save(machine, &self.path, file, &mut receipt).await
            }
            other => other,
        }
        .map_err(|error| Missed::from(error, &self.path))
    }

    /// Writes all objects below the place into a directory.
    pub(super) async fn directory(
        &self,
        into: &Directory,
        max: u64,
        reporter: &mut Reporter<'_>,
    ) -> Result<(), Missed> {
        let (store, found) = match self.list(&self.store).await {
            Err(
                object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. },
            ) if self.machine.is_some() => {
                let machine = self.machine.as_ref().unwrap_or(&self.store);
                (machine, self.list(machine).await)
            }
            other => (&self.store, other),
        };
        let found = found.map_err(|error| Missed::from(error, &self.path))?;
        if found.is_empty() {
            return Err(Missed::Nothing(self.path.to_string()));
        }
        if found.len() > OBJECTS_MAX {
            return Err(Missed::Failed(format!(
                "more than {OBJECTS_MAX} objects at {:?}",
                self.path.as_ref()
            )));
        }
        let mut receipt = Receipt { max, received: 0, reporter };
        for path in found {
            let below: std::path::PathBuf = match path.prefix_match(&self.path) {
                Some(parts) => parts.map(|part| part.as_ref().to_owned()).collect(),
                None => continue,
            };
            let Some(name) = below.file_name() else { continue };
            let parent = below.parent().unwrap_or(std::path::Path::new(""));
            let at = into.create_all(parent, DIRECTORY_MODE).map_err(|error| Missed::io(&error))?;
            let mut file = at.temporary().map_err(|error| Missed::io(&error))?;
            self.save(store, &path, &mut file.file, &mut receipt)
                .await
                .map_err(|error| Missed::from(error, &path))?;
            file.keep(&at, OsStr::new(name), Attributes::mode(FILE_MODE))
                .map_err(|error| Missed::io(&error))?;
        }
        Ok(())
    }

    async fn list(&self, store: &AmazonS3) -> object_store::Result<Vec<Path>> {
        let found = store.list(Some(&self.path)).take(OBJECTS_MAX + 1);
        found.map_ok(|meta| meta.location).try_collect().await
    }

    async fn save(
        &self,
        store: &AmazonS3,
        path: &Path,
        file: &mut File,
        receipt: &mut Receipt<'_, '_>,
    ) -> object_store::Result<()> {
        let failed =
            |source: std::io::Error| object_store::Error::Generic { store: "S3", source: source.into() };
        let version = self.version.clone().filter(|_| *path == self.path);
        let result = store.get_opts(path, GetOptions { version, ..GetOptions::default() }).await?;
        let max = receipt.max;
        let total = receipt.received.saturating_add(result.meta.size);
        let too_large = || failed(std::io::Error::other(format!("download is larger than {max} bytes")));
        if total > max {
            return Err(too_large());
        }
        let mut body = result.into_stream();
        while let Some(chunk) = body.try_next().await? {
            receipt.received += chunk.len() as u64;
            if receipt.received > max {
                return Err(too_large());
            }
            file.write_all(&chunk).map_err(failed)?;
            receipt.reporter.received(receipt.received, Some(total));
        }
        file.rewind().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_bucket_a_key_and_a_region() {
        for (text, endpoint, region, bucket, key) in [
            ("s3::https://s3.amazonaws.com/b/k/x", None, "us-east-1", "b", "k/x"),
            ("s3::https://s3-eu-west-1.amazonaws.com/b/k", None, "eu-west-1", "b", "k"),
            ("s3::https://s3.eu-west-1.amazonaws.com/b/k", None, "eu-west-1", "b", "k"),
            ("my.b.s3.amazonaws.com/k/x", None, "us-east-1", "my.b", "k/x"),
            ("b.s3-eu-west-1.amazonaws.com/k", None, "eu-west-1", "b", "k"),
            ("b.s3.eu-west-1.amazonaws.com/k", None, "eu-west-1", "b", "k"),
            ("s3::http://127.0.0.1:9000/b/a%20b?region=r", Some("http://127.0.0.1:9000"), "r", "b", "a b"),
        ] {
            let source = Source::parse(text, &BTreeMap::new()).unwrap();
            let expected = Address {
                endpoint: endpoint.map(str::to_owned),
                region: region.to_owned(),
                bucket: bucket.to_owned(),
                key: key.to_owned(),
            };
            assert_eq!(Address::parse(&source), Ok(expected), "{text}");
        }
        for text in ["s3::https://h/b", "s3::https://h/b/", "s3::https://x.y.z.amazonaws.com/k"] {
            let error = Address::parse(&Source::parse(text, &BTreeMap::new()).unwrap()).unwrap_err();
            assert!(error.starts_with("URL is not a valid S3 URL"), "{error}");
        }
        let options = BTreeMap::from([("aws_access_key_id".to_owned(), "a".to_owned())]);
        let source = Source::parse("s3::http://h/b/k", &options).unwrap();
        let error = Bucket::open(&source, &BTreeMap::new()).err();
        assert_eq!(error.as_deref(), Some("aws_access_key_id without aws_access_key_secret"));
    }
}
