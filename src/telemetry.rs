//! Metrics of this process, in one registry. Names follow Nomad's where it has the same figure.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus::Encoder;
use prometheus::Gauge;
use prometheus::HistogramOpts;
use prometheus::HistogramVec;
use prometheus::IntCounter;
use prometheus::IntCounterVec;
use prometheus::IntGauge;
use prometheus::IntGaugeVec;
use prometheus::Opts;
use prometheus::Registry;
use prometheus::TextEncoder;
use prometheus::proto::LabelPair;
use prometheus::proto::Metric;
use prometheus::proto::MetricFamily;
use prometheus::proto::MetricType;
use serde_json::Value;
use serde_json::json;

use crate::model::time::Time;

/// Upper bounds of duration buckets, seconds.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

struct Metrics {
    registry: Registry,
    passes: HistogramVec,
    pass_errors: IntCounterVec,
    commits: IntCounter,
    commit_ops: IntCounter,
    leader: Gauge,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    fn new() -> Self {
        let registry = Registry::new();
        let passes = HistogramVec::new(
            HistogramOpts::new(
                "herder_controller_pass_seconds",
                "duration of reconcile passes, commits included",
            )
            .buckets(SECONDS.to_vec()),
            &["controller"],
        )
        .expect("constant options");
        let pass_errors = IntCounterVec::new(
            Opts::new("herder_controller_errors_total", "reconcile passes that are to be tried again"),
            &["controller"],
        )
        .expect("constant options");
        let commits =
            IntCounter::new("herder_commits_total", "transactions of controllers").expect("constant");
        let commit_ops =
            IntCounter::new("herder_commit_ops_total", "operations in transactions of controllers")
                .expect("constant");
        let leader = Gauge::new("herder_leader", "1 while this server leads").expect("constant");
        let requests = IntCounterVec::new(
            Opts::new("herder_http_requests_total", "answered requests of the HTTP API"),
            &["method", "status"],
        )
        .expect("constant options");
        let request_seconds = HistogramVec::new(
            HistogramOpts::new("herder_http_request_seconds", "time to the first byte, blocking included")
                .buckets(SECONDS.to_vec()),
            &["method"],
        )
        .expect("constant options");
        let metrics =
            Self { registry, passes, pass_errors, commits, commit_ops, leader, requests, request_seconds };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let collectors: [Box<dyn prometheus::core::Collector>; 7] = [
            Box::new(self.passes.clone()),
            Box::new(self.pass_errors.clone()),
            Box::new(self.commits.clone()),
            Box::new(self.commit_ops.clone()),
            Box::new(self.leader.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.request_seconds.clone()),
        ];
        for collector in collectors {
            self.registry.register(collector).expect("each name is registered once");
        }
    }
}

/// A reconcile pass ended.
pub fn observe_pass(controller: &'static str, took: Duration, succeeded: bool) {
    METRICS.passes.with_label_values(&[controller]).observe(took.as_secs_f64());
    if !succeeded {
        METRICS.pass_errors.with_label_values(&[controller]).inc();
    }
}

/// A transaction with this many operations was committed.
pub fn observe_commit(ops: usize) {
    METRICS.commits.inc();
    METRICS.commit_ops.inc_by(ops as u64);
}

/// This server began or ceased to lead.
pub fn observe_leadership(leads: bool) {
    METRICS.leader.set(f64::from(u8::from(leads)));
}

/// The HTTP API answered a request.
pub fn observe_request(method: &http::Method, status: u16, took: Duration) {
    // Only the verbs that routes know, so that nobody can fill the registry with invented ones.
    let method = match method.as_str() {
        known @ ("GET" | "PUT" | "POST" | "DELETE") => known,
        _ => "other",
    };
    METRICS.requests.with_label_values(&[method, &status.to_string()]).inc();
    METRICS.request_seconds.with_label_values(&[method]).observe(took.as_secs_f64());
}

/// The registry that everything is exported from; others may add their own collectors.
pub fn registry() -> &'static Registry {
    &METRICS.registry
}

/// How a figure moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    Gauge,
    /// Only ever grows.
    Counter,
}

/// A figure that is not kept, but taken when metrics are asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// With dots: `nomad.client.uptime`.
    pub name: String,
    pub kind: FigureKind,
    pub value: f64,
    pub labels: BTreeMap<String, String>,
}

/// All metrics, and these figures, in Prometheus' text format.
pub fn prometheus_text(figures: &[Figure]) -> String {
    let mut out = Vec::new();
    let mut families = METRICS.registry.gather();
    families.extend(families_of(figures));
    // Writing to memory cannot fail; a metric that cannot be encoded is left out.
    let _ = TextEncoder::new().encode(&families, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Figures of one name belong together.
fn families_of(figures: &[Figure]) -> Vec<MetricFamily> {
    let mut by_name: BTreeMap<(String, bool), Vec<Metric>> = BTreeMap::new();
    for figure in figures {
        let labels = figure.labels.iter().map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name(plain_name(name));
            label.set_value(value.clone());
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        let is_counter = figure.kind == FigureKind::Counter;
        if is_counter {
            let mut counter = prometheus::proto::Counter::default();
            counter.set_value(figure.value);
            metric.set_counter(counter);
        } else {
            let mut gauge = prometheus::proto::Gauge::default();
            gauge.set_value(figure.value);
            metric.set_gauge(gauge);
        }
        by_name.entry((plain_name(&figure.name), is_counter)).or_default().push(metric);
    }
    let families = by_name.into_iter().map(|((name, is_counter), metrics)| {
        let mut family = MetricFamily::default();
        family.set_help(name.clone());
        family.set_name(name);
        family.set_field_type(if is_counter { MetricType::COUNTER } else { MetricType::GAUGE });
        family.set_metric(metrics);
        family
    });
    families.collect()
}

/// What Prometheus allows in names.
fn plain_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect()
}

/// What a cluster consists of, by status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFigures {
    pub jobs: BTreeMap<&'static str, i64>,
    /// By client status.
    pub allocations: BTreeMap<&'static str, i64>,
    /// The open ones only.
    pub evaluations: BTreeMap<&'static str, i64>,
    pub nodes: usize,
    /// The revision at which all this was counted.
    pub revision: i64,
}

/// Takes over what was counted; done when metrics are asked for.
pub fn observe_cluster(figures: &ClusterFigures) {
    let by_status = [
        (&CLUSTER.jobs, &figures.jobs),
        (&CLUSTER.allocs, &figures.allocations),
        (&CLUSTER.evals, &figures.evaluations),
    ];
    for (gauge, counts) in by_status {
        gauge.reset();
        for (status, count) in counts {
            gauge.with_label_values(&[status]).set(*count);
        }
    }
    CLUSTER.nodes.set(i64::try_from(figures.nodes).unwrap_or(i64::MAX));
    CLUSTER.revision.set(figures.revision);
}

/// Figures taken from the mirror.
struct Cluster {
    jobs: IntGaugeVec,
    allocs: IntGaugeVec,
    evals: IntGaugeVec,
    nodes: IntGauge,
    revision: IntGauge,
}

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| {
    let by_status = |name: &str, help: &str| {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["status"]).expect("constant options");
        registry().register(Box::new(gauge.clone())).expect("each name is registered once");
        gauge
    };
    let single = |name: &str, help: &str| {
        let gauge = IntGauge::new(name, help).expect("constant options");
        registry().register(Box::new(gauge.clone())).expect("each name is registered once");
        gauge
    };
    Cluster {
        jobs: by_status("nomad_nomad_job_status", "jobs by status"),
        allocs: by_status("herder_allocations", "allocations by client status"),
        evals: by_status("herder_evaluations", "open evaluations by status"),
        nodes: single("herder_nodes", "known nodes"),
        revision: single("herder_mirror_revision", "revision that the mirror has reached"),
    }
});

/// All metrics, and these figures, in the form of Nomad's JSON. Every entry has a `host` label.
pub fn json_summary(now: Time, host: &str, figures: &[Figure]) -> Value {
    let (mut gauges, mut counters, mut samples) = (Vec::new(), Vec::new(), Vec::new());
    for Figure { name, kind, value, labels } in figures {
        let mut all: BTreeMap<&str, &str> = BTreeMap::from([("host", host)]);
        all.extend(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        match kind {
            FigureKind::Gauge => gauges.push(json!({"Name": name, "Value": value, "Labels": all})),
            FigureKind::Counter => counters.push(sample(name, *value as u64, *value, &all)),
        }
    }
    for family in METRICS.registry.gather() {
        for metric in family.get_metric() {
            let mut labels: BTreeMap<&str, &str> = BTreeMap::from([("host", host)]);
            labels.extend(metric.get_label().iter().map(|label| (label.name(), label.value())));
            let name = family.name();
            match family.get_field_type() {
                MetricType::GAUGE => {
                    gauges.push(
                        json!({"Name": name, "Value": metric.get_gauge().get_value(), "Labels": labels}),
                    );
                }
                MetricType::COUNTER => {
                    let sum = metric.get_counter().get_value();
                    counters.push(sample(name, sum as u64, sum, &labels));
                }
                MetricType::HISTOGRAM => {
                    let histogram = metric.get_histogram();
                    let (count, sum) = (histogram.get_sample_count(), histogram.get_sample_sum());
                    samples.push(sample(name, count, sum, &labels));
                }
                _ => {}
            }
        }
    }
    let timestamp = now.to_chrono().format("%Y-%m-%d %H:%M:%S +0000 UTC").to_string();
    json!({
        "Timestamp": timestamp, "Gauges": gauges, "Points": [], "Counters": counters, "Samples": samples,
    })
}

/// A total since the process began. Extremes within an interval are not kept, so the mean stands for them.
fn sample(name: &str, count: u64, sum: f64, labels: &BTreeMap<&str, &str>) -> Value {
    let mean = if count == 0 { 0.0 } else { sum / count as f64 };
    json!({
        "Name": name, "Count": count, "Rate": mean, "Sum": sum, "Min": mean, "Max": mean, "Mean": mean,
        "Stddev": 0.0, "Labels": labels,
    })
}
