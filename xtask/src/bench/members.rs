//! `cargo xtask bench members`: what a change of the members costs those who write meanwhile, and that it costs no write.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use atomix_cli::cluster::{Cluster, Entry};
use atomix_cli::table::Table;
use tokio::process::Command;

use super::load::{Acknowledged, Figures, Load, VALUE_BYTES, WRITERS};

/// Nothing is changed for so long, between two changes.
const STEADY: Duration = Duration::from_secs(3);
/// What a command brings about may come after its end.
const AFTER: Duration = Duration::from_secs(1);
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(60);
const PATH: &str = "/bench/members";

/// One step: how long the command took, and what writers saw meanwhile.
struct Step {
    what: String,
    command: Option<Duration>,
    figures: Figures,
}

/// Measures; whether every acknowledged write is there, at every member.
pub(super) async fn run(cluster: &mut Cluster, executable: &Path) -> Result<bool, String> {
    println!(
        "members: three server processes, fsync on, {WRITERS} puts of {VALUE_BYTES} B in flight and one writer that writes one after another"
    );
    cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let load = Load::start(&cluster.addresses(), PATH).await?;
    let mut bench = Bench { executable, load, steps: Vec::new() };
    bench.figures("(warming up)", None, STEADY).await?;
    bench.steps.clear();
    bench.figures("3 members, nothing changes", None, STEADY).await?;
    for what in ["4th added", "5th added"] {
        let server = cluster.add_server(Entry::Waits).map_err(|error| error.to_string())?;
        let address = cluster.addresses()[server].clone();
        bench.command(cluster, what, &["add", &address]).await?;
    }
    bench.figures("5 members, nothing changes", None, STEADY).await?;
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    bench.remove(cluster, "leader removed: 4", leader).await?;
    let leader = cluster.leader(WAIT).await.map_err(|failure| failure.to_string())?;
    let other = (0..cluster.size()).find(|server| *server != leader && cluster.pid(*server).is_some());
    bench.remove(cluster, "follower removed: 3", other.ok_or("no follower runs")?).await?;
    bench.command(cluster, "leadership transferred", &["transfer"]).await?;
    bench.figures("3 members, nothing changes", None, STEADY).await?;
    let Bench { load, steps, .. } = bench;
    let (acknowledged, total) = load.stop().await?;
    println!("{}", table(&steps));
    println!("refused {}, unknown {}", total.refused, total.unknown);
    let lost = lost(cluster, &acknowledged).await?;
    println!("acknowledged {}, lost {lost}", total.acknowledged);
    Ok(lost == 0 && total.acknowledged > 0)
}

struct Bench<'a> {
    executable: &'a Path,
    load: Load,
    steps: Vec<Step>,
}

impl Bench<'_> {
    /// What writers see for a while, and have seen since the last look.
    async fn figures(&mut self, what: &str, command: Option<Duration>, more: Duration) -> Result<(), String> {
        tokio::time::sleep(more).await;
        let figures = self.load.figures().await?;
        self.steps.push(Step { what: what.into(), command, figures });
        Ok(())
    }

    /// Runs `atomix member`, as an operator does.
    async fn command(&mut self, cluster: &Cluster, what: &str, arguments: &[&str]) -> Result<(), String> {
        let begin = Instant::now();
        let said = member(self.executable, &cluster.addresses(), arguments).await?;
        let took = begin.elapsed();
        println!("atomix member {}: {:.0} ms\n{said}", arguments.join(" "), took.as_secs_f64() * 1e3);
        self.figures(what, Some(took), AFTER).await
    }

    /// Removes a member, and ends its process.
    async fn remove(&mut self, cluster: &mut Cluster, what: &str, server: usize) -> Result<(), String> {
        let status = cluster.status(server).await.ok_or("a member does not answer")?;
        let id = status.server.ok_or("a member has no id")?.to_string();
        self.command(cluster, what, &["remove", &id]).await?;
        cluster.kill(server).await.map_err(|error| error.to_string())
    }
}

/// Runs `atomix member`; what it said.
pub(super) async fn member(
    executable: &Path,
    servers: &[String],
    arguments: &[&str],
) -> Result<String, String> {
    let output = Command::new(executable)
        .arg("member")
        .args(arguments)
        .args(["--timeout", "60s", "--cluster", &servers.join(",")])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| error.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let said: String = err.lines().chain(out.lines()).map(|line| format!("  {line}\n")).collect();
    if !output.status.success() {
        return Err(format!("`atomix member {}`: {}\n{said}", arguments.join(" "), output.status));
    }
    Ok(said)
}

/// How many acknowledged writes some member does not have, or has had overwritten by an earlier one.
async fn lost(cluster: &Cluster, acknowledged: &Acknowledged) -> Result<usize, String> {
    let mut lost = 0;
    for server in (0..cluster.size()).filter(|server| cluster.pid(*server).is_some()) {
        cluster.caught_up(server, WAIT).await.map_err(|failure| failure.to_string())?;
        let address = &cluster.addresses()[server];
        let missing = acknowledged.missing_at(address, PATH).await?;
        println!("{address}: {} missing", missing.len());
        for key in missing.iter().take(10) {
            println!("  LOST at {address}: {key}");
        }
        lost = lost.max(missing.len());
    }
    Ok(lost)
}

fn table(steps: &[Step]) -> Table {
    let mut table =
        Table::new(["step", "command ms", "seconds", "puts/s", "p50 ms", "p99 ms", "longest pause ms"]);
    for Step { what, command, figures } in steps {
        let seconds = figures.time.as_secs_f64();
        let milliseconds = |quantile| figures.latency.value_at_quantile(quantile) as f64 / 1e3;
        table.row([
            what.clone(),
            command.map_or_else(|| "-".to_owned(), |took| format!("{:.0}", took.as_secs_f64() * 1e3)),
            format!("{seconds:.1}"),
            format!("{:.0}", figures.puts as f64 / seconds),
            format!("{:.2}", milliseconds(0.5)),
            format!("{:.2}", milliseconds(0.99)),
            format!("{:.0}", figures.longest_pause.as_secs_f64() * 1e3),
        ]);
    }
    table
}
