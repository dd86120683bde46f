//! The flags that every command of the API takes, and their environment variables.

use std::path::PathBuf;

use clap::Args;

use crate::client::HttpOptions;
use crate::client::Scope;
use crate::config::EtcdConfig;

/// Where an agent listens unless it is told otherwise.
const DEFAULT_ADDRESS: &str = "http://127.0.0.1:4646";

/// Flags for reaching the API. The environment is asked for those that are not given.
#[derive(Args, Clone, Debug, Default)]
pub struct General {
    /// The address of the API. Overrides HERDER_ADDR and NOMAD_ADDR. Default = http://127.0.0.1:4646
    #[arg(long, value_name = "addr", help_heading = "General Options")]
    pub address: Option<String>,
    /// The region to ask. Overrides HERDER_REGION and NOMAD_REGION. Defaults to the agent's region.
    #[arg(long, value_name = "region", help_heading = "General Options")]
    pub region: Option<String>,
    /// The namespace to ask; '*' for all where a command can list them. Overrides NOMAD_NAMESPACE.
    #[arg(long, value_name = "namespace", help_heading = "General Options")]
    pub namespace: Option<String>,
    /// The secret of an ACL token. Overrides HERDER_TOKEN and NOMAD_TOKEN.
    #[arg(long, value_name = "token", help_heading = "General Options")]
    pub token: Option<String>,
    /// A file with the certificates of authorities to trust. Overrides NOMAD_CACERT.
    #[arg(long, value_name = "path", help_heading = "General Options")]
    pub ca_cert: Option<PathBuf>,
    /// A directory with such files. Overrides NOMAD_CAPATH.
    #[arg(long, value_name = "path", help_heading = "General Options")]
    pub ca_path: Option<PathBuf>,
    /// The certificate to show to the server. Overrides NOMAD_CLIENT_CERT.
    #[arg(long, value_name = "path", help_heading = "General Options")]
    pub client_cert: Option<PathBuf>,
    /// The key of that certificate. Overrides NOMAD_CLIENT_KEY.
    #[arg(long, value_name = "path", help_heading = "General Options")]
    pub client_key: Option<PathBuf>,
    /// The name that the server's certificate must bear. Overrides NOMAD_TLS_SERVER_NAME.
    #[arg(long, value_name = "name", help_heading = "General Options")]
    pub tls_server_name: Option<String>,
    /// Do not verify the server's certificate. Overrides NOMAD_SKIP_VERIFY.
    #[arg(long, alias = "insecure", help_heading = "General Options")]
    pub tls_skip_verify: bool,
    /// No colours. Also NOMAD_CLI_NO_COLOR.
    #[arg(long, help_heading = "General Options")]
    pub no_color: bool,
    /// Colours even without a terminal. Also NOMAD_CLI_FORCE_COLOR.
    #[arg(long, help_heading = "General Options")]
    pub force_color: bool,
    /// Work straight on this etcd, without an agent: comma-separated addresses. Overrides HERDER_ETCD_ENDPOINTS.
    #[arg(long, value_name = "addrs", help_heading = "General Options")]
    pub etcd_endpoints: Option<String>,
    /// The prefix of all keys in etcd. Overrides HERDER_ETCD_ROOT. Default = /herder/
    #[arg(long, value_name = "prefix", help_heading = "General Options")]
    pub etcd_root: Option<String>,
    /// The user of etcd. Overrides HERDER_ETCD_USER.
    #[arg(long, value_name = "name", help_heading = "General Options")]
    pub etcd_user: Option<String>,
    /// The password of that user. Overrides HERDER_ETCD_PASSWORD.
    #[arg(long, value_name = "password", help_heading = "General Options")]
    pub etcd_password: Option<String>,
    /// The authority to trust for etcd. Overrides HERDER_ETCD_CA_FILE.
    #[arg(long, value_name = "path", help_heading = "General Options")]
    pub etcd_ca_file: Option<String>,
    /// The certificate to show to etcd. Overrides HERDER_ETCD_CERT_FILE.
    #[arg(long, value_name = "path", help_heading = "General Options")]
    pub etcd_cert_file: Option<String>,
    /// The key of that certificate. Overrides HERDER_ETCD_KEY_FILE.
    #[arg(long, value_name = "path", help_heading = "General Options")]
    pub etcd_key_file: Option<String>,
}

/// `HERDER_<name>`, else `NOMAD_<name>`, if set and not empty.
pub fn environment(name: &str) -> Option<String> {
    let read = |prefix: &str| std::env::var(format!("{prefix}_{name}")).ok().filter(|text| !text.is_empty());
    read("HERDER").or_else(|| read("NOMAD"))
}

/// Whether such a variable is set.
pub fn is_set(name: &str) -> bool {
    environment(name).is_some()
}

impl General {
    /// What the HTTP transport needs.
    pub fn http_options(&self) -> HttpOptions {
        let path = |flag: &Option<PathBuf>, name: &str| {
            flag.clone().or_else(|| environment(name).map(PathBuf::from))
        };
        let skip =
            environment("SKIP_VERIFY").and_then(|text| super::argv::parse_bool(&text)).unwrap_or(false);
        let address = self.address.clone().or_else(|| environment("ADDR"));
        HttpOptions {
            address: address.unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
            ca_cert: path(&self.ca_cert, "CACERT"),
            ca_path: path(&self.ca_path, "CAPATH"),
            client_cert: path(&self.client_cert, "CLIENT_CERT"),
            client_key: path(&self.client_key, "CLIENT_KEY"),
            tls_server_name: self.tls_server_name.clone().or_else(|| environment("TLS_SERVER_NAME")),
            tls_skip_verify: self.tls_skip_verify || skip,
            connect_timeout: None,
        }
    }

    /// What goes with every request.
    pub fn scope(&self) -> Scope {
        Scope {
            region: self.region.clone().or_else(|| environment("REGION")),
            namespace: self.namespace.clone().or_else(|| environment("NAMESPACE")),
            token: self.token.clone().or_else(|| environment("TOKEN")),
            basic_auth: environment("HTTP_AUTH"),
        }
    }

    /// How to reach etcd, where that was asked for.
    pub fn etcd(&self) -> EtcdConfig {
        let mut etcd = EtcdConfig::from_environment();
        self.overlay_etcd(&mut etcd);
        etcd
    }

    /// Puts the flags for etcd over a configuration.
    pub fn overlay_etcd(&self, etcd: &mut EtcdConfig) {
        if let Some(endpoints) = &self.etcd_endpoints {
            etcd.endpoints = crate::config::split_endpoints(endpoints);
        }
        let put = |to: &mut String, flag: &Option<String>| {
            if let Some(text) = flag {
                to.clone_from(text);
            }
        };
        put(&mut etcd.root, &self.etcd_root);
        put(&mut etcd.user, &self.etcd_user);
        put(&mut etcd.password, &self.etcd_password);
        put(&mut etcd.ca_file, &self.etcd_ca_file);
        put(&mut etcd.cert_file, &self.etcd_cert_file);
        put(&mut etcd.key_file, &self.etcd_key_file);
    }
}
