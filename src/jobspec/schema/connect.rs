//! The service mesh: `connect` in services of groups.

use super::Block;
use super::Body;
use super::FREE;
use super::Form;
use super::Kind;
use super::attribute;
use super::block;
use super::duration;
use super::flag;
use super::leaf;
use super::number;
use super::required;
use super::text;
use super::texts;

const fn branch(attributes: &'static [super::Attribute], blocks: &'static [Block]) -> Body {
    Body { attributes, blocks, finish: None }
}

pub(super) static CONNECT: Body = branch(
    &[flag("native", "Native")],
    &[
        block("sidecar_service", "SidecarService", Form::One, &SIDECAR_SERVICE),
        block("sidecar_task", "SidecarTask", Form::One, &SIDECAR_TASK),
        block("gateway", "Gateway", Form::One, &GATEWAY),
    ],
);

static SIDECAR_SERVICE: Body = branch(
    &[
        texts("tags", "Tags"),
        text("port", "Port"),
        flag("disable_default_tcp_check", "DisableDefaultTCPCheck"),
    ],
    &[block("proxy", "Proxy", Form::One, &PROXY), block("meta", "Meta", Form::TextMap, &FREE)],
);

static PROXY: Body = branch(
    &[text("local_service_address", "LocalServiceAddress"), number("local_service_port", "LocalServicePort")],
    &[
        block("expose", "Expose", Form::One, &EXPOSE),
        block("upstreams", "Upstreams", Form::Many, &UPSTREAM),
        block("transparent_proxy", "TransparentProxy", Form::One, &TRANSPARENT_PROXY),
        block("config", "Config", Form::Free, &FREE),
    ],
);

static EXPOSE: Body = branch(&[], &[block("path", "Paths", Form::Many, &EXPOSE_PATH)]);

static EXPOSE_PATH: Body = leaf(&[
    required("path", "Path", Kind::Text),
    required("protocol", "Protocol", Kind::Text),
    required("local_path_port", "LocalPathPort", Kind::Number),
    required("listener_port", "ListenerPort", Kind::Text),
]);

static UPSTREAM: Body = branch(
    &[
        text("destination_name", "DestinationName"),
        text("destination_namespace", "DestinationNamespace"),
        text("destination_peer", "DestinationPeer"),
        text("destination_partition", "DestinationPartition"),
        text("destination_type", "DestinationType"),
        number("local_bind_port", "LocalBindPort"),
        text("local_bind_address", "LocalBindAddress"),
        text("local_bind_socket_path", "LocalBindSocketPath"),
        text("local_bind_socket_mode", "LocalBindSocketMode"),
        text("datacenter", "Datacenter"),
    ],
    &[
        block("mesh_gateway", "MeshGateway", Form::One, &MESH_GATEWAY),
        block("config", "Config", Form::Free, &FREE),
    ],
);

static MESH_GATEWAY: Body = leaf(&[text("mode", "Mode")]);

static TRANSPARENT_PROXY: Body = leaf(&[
    text("uid", "UID"),
    number("outbound_port", "OutboundPort"),
    texts("exclude_inbound_ports", "ExcludeInboundPorts"),
    attribute("exclude_outbound_ports", "ExcludeOutboundPorts", Kind::Numbers),
    texts("exclude_outbound_cidrs", "ExcludeOutboundCIDRs"),
    texts("exclude_uids", "ExcludeUIDs"),
    flag("no_dns", "NoDNS"),
]);

static SIDECAR_TASK: Body = branch(
    &[
        text("name", "Name"),
        text("driver", "Driver"),
        text("user", "User"),
        duration("kill_timeout", "KillTimeout"),
        duration("shutdown_delay", "ShutdownDelay"),
        text("kill_signal", "KillSignal"),
    ],
    &[
        block("config", "Config", Form::Free, &FREE),
        block("env", "Env", Form::TextMap, &FREE),
        block("meta", "Meta", Form::TextMap, &FREE),
        block("resources", "Resources", Form::One, &super::RESOURCES),
        block("logs", "LogConfig", Form::One, &super::LOGS),
        block("volume_mount", "VolumeMounts", Form::Many, &super::VOLUME_MOUNT),
    ],
);

static GATEWAY: Body = branch(
    &[],
    &[
        block("proxy", "Proxy", Form::One, &GATEWAY_PROXY),
        block("ingress", "Ingress", Form::One, &INGRESS),
        block("terminating", "Terminating", Form::One, &TERMINATING),
        block("mesh", "Mesh", Form::One, &super::EMPTY),
    ],
);

static GATEWAY_PROXY: Body = branch(
    &[
        duration("connect_timeout", "ConnectTimeout"),
        flag("envoy_gateway_bind_tagged_addresses", "EnvoyGatewayBindTaggedAddresses"),
        flag("envoy_gateway_no_default_bind", "EnvoyGatewayNoDefaultBind"),
        text("envoy_dns_discovery_type", "EnvoyDNSDiscoveryType"),
    ],
    &[
        block(
            "envoy_gateway_bind_addresses",
            "EnvoyGatewayBindAddresses",
            Form::Keyed("Name"),
            &BIND_ADDRESS,
        ),
        block("config", "Config", Form::Free, &FREE),
    ],
);

static BIND_ADDRESS: Body = leaf(&[text("address", "Address"), number("port", "Port")]);

static INGRESS: Body = branch(
    &[],
    &[block("tls", "TLS", Form::One, &TLS), block("listener", "Listeners", Form::Many, &LISTENER)],
);

static TLS: Body = branch(
    &[
        flag("enabled", "Enabled"),
        text("tls_min_version", "TLSMinVersion"),
        text("tls_max_version", "TLSMaxVersion"),
        texts("cipher_suites", "CipherSuites"),
    ],
    &[block("sds", "SDS", Form::One, &SDS)],
);

static SDS: Body = leaf(&[text("cluster_name", "ClusterName"), text("cert_resource", "CertResource")]);

static LISTENER: Body = branch(
    &[number("port", "Port"), text("protocol", "Protocol")],
    &[block("service", "Services", Form::Many, &INGRESS_SERVICE)],
);

static INGRESS_SERVICE: Body = branch(
    &[
        text("name", "Name"),
        texts("hosts", "Hosts"),
        number("max_connections", "MaxConnections"),
        number("max_pending_requests", "MaxPendingRequests"),
        number("max_concurrent_requests", "MaxConcurrentRequests"),
    ],
    &[
        block("tls", "TLS", Form::One, &TLS),
        block("request_headers", "RequestHeaders", Form::One, &HEADERS),
        block("response_headers", "ResponseHeaders", Form::One, &HEADERS),
    ],
);

static HEADERS: Body = branch(
    &[texts("remove", "Remove")],
    &[block("add", "Add", Form::TextMap, &FREE), block("set", "Set", Form::TextMap, &FREE)],
);

static TERMINATING: Body = branch(&[], &[block("service", "Services", Form::Many, &LINKED_SERVICE)]);

static LINKED_SERVICE: Body = leaf(&[
    text("name", "Name"),
    text("ca_file", "CAFile"),
    text("cert_file", "CertFile"),
    text("key_file", "KeyFile"),
    text("sni", "SNI"),
]);
