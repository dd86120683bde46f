//! What the cloud that a machine runs in says about it. The firmware tells which cloud that is, so that no other
//! machine waits for an answer that never comes.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Client;
use reqwest::Method;
use serde_json::Value;

/// Where all of these clouds answer.
pub(super) const METADATA: &str = "http://169.254.169.254";
/// A metadata service that takes longer is not there.
const TIMEOUT: Duration = Duration::from_secs(2);

/// One cloud: how it is recognised, and what is asked.
struct Cloud {
    /// Name of the part, for the options `fingerprint.allowlist` and `fingerprint.denylist`.
    part: &'static str,
    /// How the firmware's vendor or product begins.
    vendor: &'static str,
    header: (&'static str, &'static str),
    /// Attribute, path, and whether only the last part of the answer's path counts.
    questions: &'static [(&'static str, &'static str, bool)],
}

const AWS_TOKEN: &str = "/latest/api/token";

const CLOUDS: &[Cloud] = &[
    Cloud {
        part: "env_aws",
        vendor: "Amazon EC2",
        header: ("", ""),
        questions: &[
            ("platform.aws.ami-id", "/latest/meta-data/ami-id", false),
            ("platform.aws.instance-life-cycle", "/latest/meta-data/instance-life-cycle", false),
            ("platform.aws.instance-type", "/latest/meta-data/instance-type", false),
            (
                "platform.aws.placement.availability-zone",
                "/latest/meta-data/placement/availability-zone",
                false,
            ),
            ("unique.platform.aws.hostname", "/latest/meta-data/hostname", false),
            ("unique.platform.aws.instance-id", "/latest/meta-data/instance-id", false),
            ("unique.platform.aws.local-hostname", "/latest/meta-data/local-hostname", false),
            ("unique.platform.aws.local-ipv4", "/latest/meta-data/local-ipv4", false),
            ("unique.platform.aws.mac", "/latest/meta-data/mac", false),
            ("unique.platform.aws.public-hostname", "/latest/meta-data/public-hostname", false),
            ("unique.platform.aws.public-ipv4", "/latest/meta-data/public-ipv4", false),
            ("unique.platform.aws.public-ipv6", "/latest/meta-data/ipv6", false),
        ],
    },
    Cloud {
        part: "env_gce",
        vendor: "Google",
        header: ("Metadata-Flavor", "Google"),
        questions: &[
            ("platform.gce.cpu-platform", "/computeMetadata/v1/instance/cpu-platform", false),
            ("platform.gce.machine-type", "/computeMetadata/v1/instance/machine-type", true),
            ("platform.gce.zone", "/computeMetadata/v1/instance/zone", true),
            (
                "platform.gce.scheduling.automatic-restart",
                "/computeMetadata/v1/instance/scheduling/automatic-restart",
                false,
            ),
            (
                "platform.gce.scheduling.on-host-maintenance",
                "/computeMetadata/v1/instance/scheduling/on-host-maintenance",
                false,
            ),
            (
                "platform.gce.scheduling.preemptible",
                "/computeMetadata/v1/instance/scheduling/preemptible",
                false,
            ),
            ("unique.platform.gce.hostname", "/computeMetadata/v1/instance/hostname", false),
            ("unique.platform.gce.id", "/computeMetadata/v1/instance/id", false),
        ],
    },
    Cloud {
        part: "env_azure",
        vendor: "Microsoft Corporation",
        header: ("Metadata", "true"),
        questions: &[
            (
                "unique.platform.azure.name",
                "/metadata/instance/compute/name?api-version=2019-06-04&format=text",
                false,
            ),
            (
                "unique.platform.azure.id",
                "/metadata/instance/compute/vmId?api-version=2019-06-04&format=text",
                false,
            ),
            (
                "platform.azure.location",
                "/metadata/instance/compute/location?api-version=2019-06-04&format=text",
                false,
            ),
            (
                "platform.azure.vm-size",
                "/metadata/instance/compute/vmSize?api-version=2019-06-04&format=text",
                false,
            ),
            (
                "platform.azure.zone",
                "/metadata/instance/compute/zone?api-version=2019-06-04&format=text",
                false,
            ),
        ],
    },
    Cloud {
        part: "env_digitalocean",
        vendor: "DigitalOcean",
        header: ("", ""),
        questions: &[
            ("platform.digitalocean.region", "/metadata/v1/region", false),
            ("unique.platform.digitalocean.id", "/metadata/v1/id", false),
            ("unique.platform.digitalocean.hostname", "/metadata/v1/hostname", false),
            (
                "unique.platform.digitalocean.public-ipv4",
                "/metadata/v1/interfaces/public/0/ipv4/address",
                false,
            ),
            (
                "unique.platform.digitalocean.private-ipv4",
                "/metadata/v1/interfaces/private/0/ipv4/address",
                false,
            ),
        ],
    },
];

/// The attributes of the cloud whose firmware this is; none for other machines. `wanted`: may this part be asked?
pub(super) async fn attributes(
    firmware: &[String],
    base: &str,
    wanted: impl Fn(&str) -> bool,
) -> BTreeMap<String, String> {
    let ours =
        |cloud: &&Cloud| firmware.iter().any(|text| text.starts_with(cloud.vendor)) && wanted(cloud.part);
    let Some(cloud) = CLOUDS.iter().find(ours) else { return BTreeMap::new() };
    crate::agent::hooks::install_tls();
    let Ok(client) = Client::builder().no_proxy().timeout(TIMEOUT).build() else { return BTreeMap::new() };
    let mut headers = vec![(cloud.header.0.to_owned(), cloud.header.1.to_owned())];
    if cloud.part == "env_aws" {
        let life = vec![("X-aws-ec2-metadata-token-ttl-seconds".to_owned(), "60".to_owned())];
        // Older instances answer without a token.
        if let Some(token) = ask(&client, Method::PUT, &format!("{base}{AWS_TOKEN}"), &life).await {
            headers.push(("X-aws-ec2-metadata-token".to_owned(), token));
        }
    }
    headers.retain(|(name, _)| !name.is_empty());
    let mut found = BTreeMap::new();
    for (attribute, path, last_part) in cloud.questions {
        let Some(answer) = ask(&client, Method::GET, &format!("{base}{path}"), &headers).await else {
            continue;
        };
        let answer =
            if *last_part { answer.rsplit('/').next().unwrap_or_default().to_owned() } else { answer };
        found.insert((*attribute).to_owned(), answer);
    }
    if cloud.part == "env_gce" {
        found.extend(labels_of_gce(&client, base, &headers).await);
    }
    found
}

/// A non-empty answer; everything else is no answer.
async fn ask(client: &Client, method: Method, url: &str, headers: &[(String, String)]) -> Option<String> {
    let mut request = client.request(method, url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.ok()?.error_for_status().ok()?;
    Some(answer.text().await.ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Tags, attributes and networks of an instance of Google's.
async fn labels_of_gce(
    client: &Client,
    base: &str,
    headers: &[(String, String)],
) -> BTreeMap<String, String> {
    let url = format!("{base}/computeMetadata/v1/instance/?recursive=true");
    let Some(text) = ask(client, Method::GET, &url, headers).await else { return BTreeMap::new() };
    let all: Value = serde_json::from_str(&text).unwrap_or_default();
    let mut found = BTreeMap::new();
    for tag in all["tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        found.insert(format!("platform.gce.tag.{tag}"), "true".to_owned());
    }
    for (key, value) in all["attributes"].as_object().into_iter().flatten() {
        if let Some(value) = value.as_str() {
            found.insert(format!("platform.gce.attr.{key}"), value.to_owned());
        }
    }
    for interface in all["networkInterfaces"].as_array().into_iter().flatten() {
        let Some(name) = interface["network"].as_str().and_then(|network| network.rsplit('/').next()) else {
            continue;
        };
        found.insert(format!("platform.gce.network.{name}"), "true".to_owned());
        if let Some(ip) = interface["ip"].as_str() {
            found.insert(format!("unique.platform.gce.network.{name}.ip"), ip.to_owned());
        }
        let outside = interface["accessConfigs"].as_array().into_iter().flatten();
        let outside = outside.filter_map(|access| access["externalIp"].as_str()).filter(|ip| !ip.is_empty());
        for (index, ip) in outside.enumerate() {
            found.insert(format!("unique.platform.gce.network.{name}.external-ip.{index}"), ip.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::io::BufReader;
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    /// Answers by path; what it does not know is not found. Requests without `header` are refused.
    fn service(answers: &'static [(&'static str, &'static str)], header: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines: Vec<String> = BufReader::new(stream.try_clone().unwrap())
                    .lines()
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let path =
                    lines.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
                let allowed = path == AWS_TOKEN || lines.iter().any(|line| line.eq_ignore_ascii_case(header));
                let found = answers.iter().find(|(known, _)| *known == path && allowed);
                let (status, body) = found.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", *body));
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + body).as_bytes());
            }
        });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn an_instance_of_aws_knows_its_type_and_zone() {
        let base = service(
            &[
                (AWS_TOKEN, "secret"),
                ("/latest/meta-data/instance-type", "m5.large"),
                ("/latest/meta-data/placement/availability-zone", "eu-west-1a"),
                ("/latest/meta-data/local-ipv4", "10.1.2.3"),
            ],
            "x-aws-ec2-metadata-token: secret",
        );
        let firmware = ["Amazon EC2".to_owned()];
        let found = attributes(&firmware, &base, |_| true).await;
        assert_eq!(found["platform.aws.instance-type"], "m5.large");
        assert_eq!(found["platform.aws.placement.availability-zone"], "eu-west-1a");
        assert_eq!(found["unique.platform.aws.local-ipv4"], "10.1.2.3");
        assert_eq!(found.len(), 3, "what is not told is left out: {found:?}");
        assert!(attributes(&firmware, &base, |part| part != "env_aws").await.is_empty());
        assert!(attributes(&["Some Laptop".to_owned()], &base, |_| true).await.is_empty());
    }

    #[tokio::test]
    async fn an_instance_of_google_knows_its_networks_and_tags() {
        let base = service(
            &[
                ("/computeMetadata/v1/instance/machine-type", "projects/1/machineTypes/n1-standard-1"),
                (
                    "/computeMetadata/v1/instance/?recursive=true",
                    r#"{"tags": ["web"], "attributes": {"k": "v"}, "networkInterfaces": [
                        {"network": "projects/1/networks/default", "ip": "10.0.0.2",
                         "accessConfigs": [{"externalIp": "1.2.3.4"}]}]}"#,
                ),
            ],
            "metadata-flavor: Google",
        );
        let found = attributes(&["Google Compute Engine".to_owned()], &base, |_| true).await;
        for (name, value) in [
            ("platform.gce.machine-type", "n1-standard-1"),
            ("platform.gce.tag.web", "true"),
            ("platform.gce.attr.k", "v"),
            ("platform.gce.network.default", "true"),
            ("unique.platform.gce.network.default.ip", "10.0.0.2"),
            ("unique.platform.gce.network.default.external-ip.0", "1.2.3.4"),
        ] {
            assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
        }
    }
}
