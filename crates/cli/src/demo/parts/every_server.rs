//! (a) A map, written and read through every server.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::client::Client;
use super::super::report::Report;
use crate::exit::Failure;

/// The map of this part.
pub(super) const USERS: &str = "/demo/users";

/// What it has written, for later parts to look for.
pub(super) async fn run(
    executable: &Path,
    servers: &[String],
    report: &mut Report,
) -> Result<BTreeMap<String, String>, Failure> {
    report.part("(a) a map, written and read through every server");
    let mut written = BTreeMap::new();
    for server in servers {
        let key = format!("written-through-{server}");
        Client::new(executable, std::slice::from_ref(server)).put(USERS, &key, "hello").await?;
        written.insert(key, "hello".to_owned());
        report.step(&format!("put through {server}"));
    }
    let mut same = 0;
    for server in servers {
        let found = Client::new(executable, std::slice::from_ref(server)).list(USERS).await?;
        report.step(&format!("read {} keys through {server}", found.len()));
        same += usize::from(found == written);
    }
    let all = servers.len();
    report.check("every server gives every key", format!("{same} of {all} servers"), same == all);
    Ok(written)
}
