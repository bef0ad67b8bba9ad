//! A cluster of server processes on this machine: for the demo, for tests and for benches.
//!
//! Nothing outlives it, however its owner ends. Each server ends when its standard input closes. The data lies in one
//! temporary directory, which a process of its own, the guard, creates and removes: its standard input is a pipe whose other end is
//! held by the owner and, as their standard output, by all servers, so that it closes when the last of them is gone.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, PipeWriter, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use atomix::{Incarnation, Member, MemberKind, Status};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::args::Wanted;
use crate::exit::{Exit, Failure};
use crate::{signals, status};

/// Between two looks at something that is awaited.
const POLL: Duration = Duration::from_millis(5);
/// A server that does not say its status in this time is looked at again.
const STATUS: Duration = Duration::from_millis(500);
/// Ports are drawn from here up to where the system's own choices begin: a client that connects from such a port to a
/// dead server's would meet itself.
const FIRST_PORT: u16 = 10_000;

/// A cluster of server processes.
#[derive(Debug)]
pub struct Cluster {
    executable: PathBuf,
    options: Vec<String>,
    root: PathBuf,
    /// Where the data directories are made.
    data: PathBuf,
    lease: PipeWriter,
    guard: Child,
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    address: String,
    /// How it comes into the cluster: arguments of `atomix serve`.
    entry: Vec<String>,
    process: Option<Child>,
}

/// How a server that was not there from the beginning comes into the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It waits until an operator takes it in.
    Waits,
    /// It asks to be taken in, and to become this.
    Asks(Wanted),
}

impl Cluster {
    /// Starts servers of an executable `atomix`, with further options for `atomix serve`.
    ///
    /// # Errors
    /// If the system refuses a process, a directory or a port.
    pub fn start(executable: &Path, servers: usize, options: &[&str]) -> io::Result<Self> {
        let mut cluster = Self::prepare(executable, servers, options)?;
        for server in 0..cluster.servers.len() {
            cluster.start_server(server)?;
        }
        Ok(cluster)
    }

    /// The same, but no server is started yet.
    ///
    /// # Errors
    /// If the system refuses a process, a directory or a port.
    pub fn prepare(executable: &Path, servers: usize, options: &[&str]) -> io::Result<Self> {
        let (reader, lease) = io::pipe()?;
        let (told, tell) = io::pipe()?;
        let guard = Command::new(executable)
            .arg("guard")
            .arg(std::env::temp_dir())
            .stdin(Stdio::from(reader))
            .stdout(Stdio::from(tell))
            .process_group(0)
            .spawn()?;
        let mut root = String::new();
        BufReader::new(told).read_line(&mut root)?;
        // Whoever could not create it has said why.
        let root = root.strip_suffix('\n').ok_or_else(|| io::Error::other("no place for the data"))?;
        let root = PathBuf::from(root);
        let addresses = free_addresses(servers)?;
        let entry = ["--bootstrap".to_owned(), addresses.join(",")].to_vec();
        let server = |address| Server { address, entry: entry.clone(), process: None };
        let servers = addresses.into_iter().map(server).collect();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let (executable, data) = (executable.into(), root.clone());
        Ok(Cluster { executable, options, root, data, lease, guard, servers })
    }

    /// Has the data directories made below another folder, on a disk of its own say. They are left to whoever made that.
    pub fn keep_data_in(&mut self, folder: &Path) {
        self.data = folder.into();
    }

    /// Adds a server and starts it; tells which it is. It knows all that were there before.
    ///
    /// # Errors
    /// If the system refuses a process or a port.
    pub fn add_server(&mut self, entry: Entry) -> io::Result<usize> {
        let others = self.addresses();
        let free = free_addresses(others.len() + 1)?;
        // One that is not running now still has its port.
        let address = free.into_iter().find(|address| !others.contains(address));
        let address = address.ok_or_else(|| io::Error::other("no free port"))?;
        let others = others.join(",");
        let entry: &[&str] = match entry {
            Entry::Waits => &["--bootstrap", &format!("{others},{address}")],
            Entry::Asks(Wanted::Voter) => &["--join", &others, "--as", "voter"],
            Entry::Asks(Wanted::Learner) => &["--join", &others, "--as", "learner"],
            Entry::Asks(Wanted::Reserve) => &["--join", &others, "--as", "reserve"],
        };
        let entry = entry.iter().map(|argument| (*argument).to_owned()).collect();
        self.servers.push(Server { address, entry, process: None });
        let server = self.servers.len() - 1;
        self.start_server(server)?;
        Ok(server)
    }

    /// Starts a server that is not running, with the arguments that it always has.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start_server(&mut self, server: usize) -> io::Result<()> {
        self.start_server_under(server, &[])
    }

    /// The same by way of another program, which is called with these arguments and the server's own command line. Its process is
    /// taken for the server's: it must become that.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn start_server_under(&mut self, server: usize, program: &[&str]) -> io::Result<()> {
        let mut command = match program {
            [] => Command::new(&self.executable),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.executable);
                command
            }
        };
        let process = command
            .args(["serve", "--exit-with-stdin", "--listen", &self.servers[server].address])
            .args(&self.servers[server].entry)
            .arg("--data-dir")
            .arg(self.directory(server))
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(Stdio::from(self.lease.try_clone()?))
            .stderr(File::options().create(true).append(true).open(self.log(server))?)
            // Ctrl-C in a terminal goes to a whole process group: it is meant for the owner alone.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        self.servers[server].process = Some(process);
        Ok(())
    }

    /// How many servers it has, running or not.
    #[must_use]
    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// Where its servers listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(|server| server.address.clone()).collect()
    }

    /// The data directory of a server.
    #[must_use]
    pub fn directory(&self, server: usize) -> PathBuf {
        self.data.join(format!("server-{}", server + 1))
    }

    /// What a server wrote to standard error, over all its starts.
    #[must_use]
    pub fn log(&self, server: usize) -> PathBuf {
        self.root.join(format!("server-{}.log", server + 1))
    }

    /// The process id of a running server.
    #[must_use]
    pub fn pid(&self, server: usize) -> Option<u32> {
        self.servers[server].process.as_ref().and_then(Child::id)
    }

    /// How a server that was started has ended by itself; `None` while it runs, and if it was ended.
    pub fn has_ended(&mut self, server: usize) -> Option<String> {
        let ended = self.servers[server].process.as_mut()?.try_wait();
        ended.map_or_else(|error| Some(error.to_string()), |status| status.map(|status| status.to_string()))
    }

    /// Ends a server by SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(&mut self, server: usize) -> io::Result<()> {
        let Some(mut process) = self.servers[server].process.take() else { return Ok(()) };
        // One that has ended by itself can't be killed.
        if process.try_wait()?.is_none() { process.kill().await } else { Ok(()) }
    }

    /// Sends a signal to a running server.
    ///
    /// # Errors
    /// If it is not running, or the system refuses.
    pub fn signal(&self, server: usize, signal: Signal) -> io::Result<()> {
        let pid = self.pid(server).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("the server is not running"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until a server has ended by itself; its exit code, if it was not a signal.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn ended(&mut self, server: usize, within: Duration) -> Result<Option<i32>, Failure> {
        let Some(mut process) = self.servers[server].process.take() else { return Ok(None) };
        // Waiting closes a child's standard input, which would end it.
        let stdin = process.stdin.take();
        let ended = tokio::time::timeout(within, process.wait()).await;
        drop(stdin);
        match ended {
            Ok(Ok(status)) => Ok(status.code()),
            Ok(Err(error)) => Err(Failure::new(Exit::Refused, error.to_string())),
            Err(_) => Err(late(&format!("server {} to end", server + 1), within)),
        }
    }

    /// What a server says of itself; `None` if it does not answer.
    pub async fn status(&self, server: usize) -> Option<Status> {
        self.servers[server].process.as_ref()?;
        let address = [self.servers[server].address.clone()];
        status::ask(&address, STATUS).await.pop()?.status.ok()
    }

    /// What all running servers say of themselves, asked at once.
    pub async fn statuses(&self) -> Vec<Option<Status>> {
        let running: Vec<bool> = self.servers.iter().map(|server| server.process.is_some()).collect();
        let answers = status::ask(&self.addresses(), STATUS).await;
        answers
            .into_iter()
            .zip(running)
            .map(|(answer, running)| answer.status.ok().filter(|_| running))
            .collect()
    }

    /// Waits until a server leads in the newest term that any running server knows, and is known as leader by a majority of its
    /// voters.
    ///
    /// # Errors
    /// If none does in time.
    pub async fn leader(&self, within: Duration) -> Result<usize, Failure> {
        until("a leader", within, async || {
            let statuses = self.statuses().await;
            let leader = statuses
                .iter()
                .position(|status| status.as_ref().is_some_and(|status| status.role == "leader"))?;
            let of_leader = statuses[leader].as_ref()?;
            let known = statuses.iter().flatten();
            let voters: Vec<Incarnation> =
                of_leader.members.iter().filter(|m| votes(m)).map(|m| m.incarnation).collect();
            let voting = known.clone().filter(|status| voters.contains(&status.incarnation));
            let followed =
                voting.filter(|s| s.leader == of_leader.server && s.term == of_leader.term).count();
            let newest = known.map(|status| status.term).max();
            (newest == Some(of_leader.term) && followed > voters.len() / 2).then_some(leader)
        })
        .await
    }

    /// Waits until a server has applied all that was committed at the leader when the wait began.
    ///
    /// # Errors
    /// If it has not in time.
    pub async fn caught_up(&self, server: usize, within: Duration) -> Result<(), Failure> {
        let leader = self.leader(within).await?;
        let goal =
            until("the leader's status", within, async || self.status(leader).await).await?.commit_index;
        until(&format!("server {} to catch up", server + 1), within, async || {
            self.status(server).await.filter(|status| status.applied_index >= goal).map(|_| ())
        })
        .await
    }

    /// Ends all processes and removes all files; returns when that is done.
    ///
    /// # Errors
    /// If the system refuses, or the guard does not end.
    pub async fn stop(mut self) -> Result<(), Failure> {
        for server in 0..self.size() {
            self.kill(server).await.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
        }
        let Cluster { root, lease, mut guard, .. } = self;
        drop(lease);
        let within = Duration::from_secs(10);
        match tokio::time::timeout(within, guard.wait()).await {
            Ok(_) if !root.exists() => Ok(()),
            Ok(_) => Err(Failure::new(Exit::Refused, format!("{} could not be removed", root.display()))),
            Err(_) => Err(late("the guard to end", within)),
        }
    }
}

fn votes(member: &Member) -> bool {
    matches!(member.kind, MemberKind::Voter | MemberKind::Leaving)
}

/// The guard: creates a directory, says which, and removes it when nobody holds the other end of its standard input any more.
/// Nobody else creates it: whoever is killed between the two would leave it.
///
/// # Errors
/// If the directory can't be created or removed.
pub async fn guard(place: &Path) -> Result<(), Failure> {
    let created = tempfile::Builder::new().prefix("atomix-").tempdir_in(place);
    let directory = created.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?.keep();
    // Whoever asked may be gone already.
    let mut out = io::stdout();
    let _ = writeln!(out, "{}", directory.display()).and_then(|()| out.flush());
    signals::stdin_closed().await;
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::Refused, format!("cannot remove {}: {error}", directory.display())))
        }
        _ => Ok(()),
    }
}

/// Looks again and again until something is there.
///
/// # Errors
/// If it is not in time.
pub async fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> Result<T, Failure> {
    let begin = Instant::now();
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if begin.elapsed() > within {
            return Err(late(what, within));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn late(what: &str, within: Duration) -> Failure {
    Failure::new(Exit::Unreachable, format!("waited {} ms for {what}", within.as_millis()))
}

/// Loopback addresses that nobody listens at now.
///
/// # Errors
/// If there are not enough.
pub fn free_addresses(wanted: usize) -> io::Result<Vec<String>> {
    let end = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|text| text.split_whitespace().next().and_then(|first| first.parse().ok()))
        .filter(|end| *end > FIRST_PORT)
        .unwrap_or(32_768);
    // Only to keep clusters that start at the same time apart.
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| now.subsec_nanos());
    let ports = u32::from(end - FIRST_PORT);
    let begin = std::process::id().wrapping_mul(7_919).wrapping_add(now);
    let mut held = Vec::new();
    for step in 0..ports {
        if held.len() == wanted {
            break;
        }
        let port = u32::from(FIRST_PORT) + begin.wrapping_add(step) % ports;
        held.extend(TcpListener::bind(("127.0.0.1", port as u16)));
    }
    if held.len() < wanted {
        return Err(io::Error::other("no free ports on loopback"));
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_addresses_differ() {
        let mut addresses = free_addresses(5).expect("ports");
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 5);
    }
}
