//! How many placements per second become durable: a real etcd, one server with all its controllers, and thousands of
//! nodes with the real agent and a fake workload, in one process. `docs/performance.md` says how to read the figures.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod audit;
mod cluster;
mod progress;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each bench needs a part of it")]
mod support;

use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use clap::Parser;
use clap::ValueEnum;

use cluster::Cluster;
use progress::Goal;
use support::cpu;
use support::etcd::Etcd;
use support::stats::summary;

/// A run that makes no progress for this long has failed.
const STALL: Duration = Duration::from_secs(60);

/// The figures of a run are printed and, unless the end state is sound, void.
#[derive(Parser, Clone, Debug)]
pub struct Options {
    /// Simulated nodes.
    #[arg(long, env = "HERDER_BENCH_NODES", default_value_t = 5000)]
    nodes: usize,
    /// Jobs.
    #[arg(long, env = "HERDER_BENCH_JOBS", default_value_t = 100)]
    jobs: usize,
    /// Allocations per job.
    #[arg(long, env = "HERDER_BENCH_COUNT", default_value_t = 1000)]
    count: usize,
    #[arg(long, env = "HERDER_BENCH_REPEATS", default_value_t = 3)]
    repeats: usize,
    #[arg(long, value_enum, default_value_t = Shape::Plain)]
    shape: Shape,
    /// Stop the agents (their leases stay) before jobs are registered: what the server alone can do.
    #[arg(long)]
    frozen: bool,
    /// Agents that share connections to etcd.
    #[arg(long, default_value_t = 100)]
    agents_per_connection: usize,
    /// Lease time of an agent, seconds. An agent's default is 10, of which 5,000 renewals cost etcd half a core.
    #[arg(long, default_value_t = 30)]
    ttl: u64,
    /// MHz per allocation; a node has 4,000.
    #[arg(long, default_value_t = 50)]
    cpu: u64,
    /// MiB per allocation; a node has 8,192.
    #[arg(long, default_value_t = 64)]
    memory: u64,
    /// Print how far the run is, every two seconds.
    #[arg(long)]
    trace: bool,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the jobs ask for.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Resources only.
    Plain,
    /// The same, with a deployment that judges health.
    Deployment,
    /// `spread`, `distinct_hosts` and `affinity`.
    Spread,
}

/// The figures of one run.
struct Figures {
    registered: f64,
    placed_rate: f64,
    placed_rate_middle: f64,
    running_after: f64,
    etcd_cpu: f64,
    own_cpu: f64,
    server_cpu: f64,
    agents_cpu: f64,
    revisions: i64,
    server_mib: f64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut runs = Vec::new();
    for repeat in 1..=options.repeats {
        match run(&options) {
            Ok(figures) => {
                println!(
                    "run {repeat}: {:.0} placed/s, {:.0} in the 5-95 % window, all running after {:.2} s",
                    figures.placed_rate, figures.placed_rate_middle, figures.running_after
                );
                runs.push(figures);
            }
            Err(text) => {
                println!("run {repeat} is void: {text}");
                return ExitCode::FAILURE;
            }
        }
    }
    let column = |digits: usize, pick: fn(&Figures) -> f64| {
        summary(&runs.iter().map(pick).collect::<Vec<_>>(), digits)
    };
    println!("median (range) of {} runs, load average at the end {}", runs.len(), cpu::load());
    println!("  nodes registered and ready after, s    {}", column(2, |run| run.registered));
    println!("  durable placements/s, whole            {}", column(0, |run| run.placed_rate));
    println!("  durable placements/s, 5-95 % window    {}", column(0, |run| run.placed_rate_middle));
    if !options.frozen {
        println!("  all reported running after, s          {}", column(2, |run| run.running_after));
    }
    println!("  CPU s per 1,000: etcd                  {}", column(3, |run| run.etcd_cpu));
    println!("  CPU s per 1,000: server and agents     {}", column(3, |run| run.own_cpu));
    println!("  CPU s per 1,000: server                {}", column(3, |run| run.server_cpu));
    println!("  CPU s per 1,000: agents                {}", column(3, |run| run.agents_cpu));
    println!("  etcd revisions from first to last      {}", column(0, |run| run.revisions as f64));
    println!("  resident MiB, server and agents        {}", column(0, |run| run.server_mib));
    ExitCode::SUCCESS
}

fn run(options: &Options) -> Result<Figures, String> {
    let etcd = Etcd::start();
    println!(
        "{} nodes with leases of {} s, {} jobs x {}, {:?}{}, etcd {} with fsync, 1 member; load average {}",
        options.nodes,
        options.ttl,
        options.jobs,
        options.count,
        options.shape,
        if options.frozen { ", agents frozen" } else { "" },
        etcd.version(),
        cpu::load()
    );
    let began = Instant::now();
    let mut cluster = Cluster::start(options, &etcd)?;
    let registered = began.elapsed().as_secs_f64();
    println!("  nodes ready after {registered:.2} s");
    if options.frozen {
        cluster.freeze();
    }
    let total = options.jobs * options.count;
    if options.trace {
        trace(&cluster, etcd.pid());
    }
    let (etcd_before, own_before) = (cpu::of_process(etcd.pid()), cpu::of_process(std::process::id()));
    let threads_before = cpu::of_threads();
    let first_revision = cluster.revision()?;
    let accepted = cluster.register_jobs(options)?;
    let placed_at = cluster.progress.wait_for(Goal::Placed(total), STALL)?;
    let running_at =
        if options.frozen { placed_at } else { cluster.progress.wait_for(Goal::Running(total), STALL)? };
    let etcd_cpu = cpu::of_process(etcd.pid()) - etcd_before;
    let own_cpu = cpu::of_process(std::process::id()) - own_before;
    let threads = cpu::of_threads();
    let of_threads = |name: &str| {
        let sum = |sums: &std::collections::BTreeMap<String, f64>| {
            sums.iter().filter(|(thread, _)| thread.starts_with(name)).map(|(_, sum)| sum).sum::<f64>()
        };
        sum(&threads) - sum(&threads_before)
    };
    let thousands = total as f64 / 1000.0;
    let figures = Figures {
        registered,
        placed_rate: total as f64 / (placed_at - accepted).as_secs_f64(),
        placed_rate_middle: cluster.progress.placed_rate(0.05, 0.95),
        running_after: (running_at - accepted).as_secs_f64(),
        etcd_cpu: etcd_cpu / thousands,
        own_cpu: own_cpu / thousands,
        server_cpu: of_threads(cluster::SERVER_THREADS) / thousands,
        agents_cpu: of_threads(cluster::AGENT_THREADS) / thousands,
        revisions: cluster.revision()? - first_revision,
        server_mib: cpu::resident_mib(std::process::id()),
    };
    cluster.settle();
    let items = cluster.contents()?;
    audit::check(options, &cluster.keys, &items)?;
    Ok(figures)
}

/// Prints progress until the process ends.
fn trace(cluster: &Cluster, etcd: u32) {
    let progress = cluster.progress.clone();
    let began = Instant::now();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(2));
            let (placed, running) = progress.now();
            println!(
                "  {:5.1} s: {placed} placed, {running} running; CPU s: etcd {:.1}, {:?}",
                began.elapsed().as_secs_f64(),
                cpu::of_process(etcd),
                cpu::of_threads()
            );
        }
    });
}
